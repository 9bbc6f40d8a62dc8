// SPDX-License-Identifier: Apache-2.0
/**
 * Reads the flight records that the ranks of a run have left (comm/flight.c) and says which rank missed which
 * collective.
 */
#ifndef SAGO_FLIGHT_H
#define SAGO_FLIGHT_H

#include "status.h"

#include <stdbool.h>

/**
 * Prints what the records of dir (or of dir/flight) tell, for people or as one JSON object. Of several runs
 * the newest counts. SAGO_E_INPUT: no records, or a line that is none, with file and line.
 */
sago_status sago_flight_print(const char *dir, bool as_json) SAGO_MUST_CHECK;

#endif
