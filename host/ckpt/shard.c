// SPDX-License-Identifier: Apache-2.0
#include "shard.h"

#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#if H5_VERSION_GE(1, 13, 0)
#include <H5FDdevelop.h>
#endif
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "tensors are stored as they lie in memory, little-endian");

/* HDF5 is mostly built without locks of its own; a save in the background and a check elsewhere may meet. */
static pthread_mutex_t library = PTHREAD_MUTEX_INITIALIZER;

static void enter_library(void) {
    pthread_mutex_lock(&library);
    H5dont_atexit();                       /* every id is closed here; nothing is left to do at exit */
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* errors become one line of ours */
}

static void leave_library(void) {
    H5Eclear2(H5E_DEFAULT);
    pthread_mutex_unlock(&library);
}

void sago_ckpt_hdf5_version(char text[32]) {
    unsigned major = 0, minor = 0, release = 0;
    enter_library();
    H5get_libversion(&major, &minor, &release);
    leave_library();
    snprintf(text, 32, "%u.%u.%u", major, minor, release);
}

/* --- one line out of HDF5's error stack --- */

static herr_t keep_innermost(unsigned n, const H5E_error2_t *entry, void *text) {
    if (n == 0 && entry->desc) snprintf(text, 256, "%s", entry->desc);
    return 0;
}

static sago_status fail_hdf5(const char *path, const char *what) {
    char cause[256] = "";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, cause);
    H5Eclear2(H5E_DEFAULT);
    cause[strcspn(cause, "\n")] = '\0';
    return sago_fail(SAGO_E_IO, "%s: HDF5 cannot %s%s%s", path, what, cause[0] ? ": " : "", cause);
}

/* --- a file driver whose writes HDF5 never sees fail --- */

/*
 * After a failed write libhdf5 can neither close the file nor end the process in peace (1.10: a crash at
 * exit, or at a later file). So the layout goes through this driver: it keeps the first error for us and says
 * yes to HDF5. One file at a time, under the library's mutex.
 */
static struct { int fd, error; } target;

typedef struct driver_file {
    H5FD_t head;
    haddr_t eoa, eof;
} driver_file;

static bool write_at(int fd, const char *bytes, size_t count, int64_t at) {
    while (count > 0) {
        ssize_t put = pwrite(fd, bytes, count, at);
        if (put < 0 && errno == EINTR) continue;
        if (put == 0) errno = ENOSPC;
        if (put <= 0) return false;
        bytes += put;
        count -= (size_t)put;
        at += put;
    }
    return true;
}

static H5FD_t *driver_open(const char *name, unsigned flags, hid_t access, haddr_t most) {
    (void)name, (void)flags, (void)access, (void)most;
    return sago_alloc_zero(1, sizeof(driver_file));
}

static herr_t driver_close(H5FD_t *file) {
    free(file);
    return 0;
}

static haddr_t driver_get_eoa(const H5FD_t *file, H5FD_mem_t type) {
    (void)type;
    return ((const driver_file *)file)->eoa;
}

static herr_t driver_set_eoa(H5FD_t *file, H5FD_mem_t type, haddr_t eoa) {
    (void)type;
    ((driver_file *)file)->eoa = eoa;
    return 0;
}

static haddr_t driver_get_eof(const H5FD_t *file, H5FD_mem_t type) {
    (void)type;
    return ((const driver_file *)file)->eof;
}

static herr_t driver_read(H5FD_t *file, H5FD_mem_t type, hid_t transfer, haddr_t at, size_t count,
                          void *bytes) {
    (void)file, (void)type, (void)transfer;
    memset(bytes, 0, count);
    if (pread(target.fd, bytes, count, (off_t)at) < 0 && target.error == 0) target.error = errno;
    return 0;
}

static herr_t driver_write(H5FD_t *file, H5FD_mem_t type, hid_t transfer, haddr_t at, size_t count,
                           const void *bytes) {
    (void)type, (void)transfer;
    driver_file *f = (driver_file *)file;
    if (target.error == 0 && !write_at(target.fd, bytes, count, (int64_t)at)) target.error = errno;
    if (f->eof < at + count) f->eof = at + count;
    return 0;
}

/* The file's length becomes what was allocated: the tensors' places are holes until they are written. */
static herr_t driver_truncate(H5FD_t *file, hid_t transfer, hbool_t closing) {
    (void)transfer, (void)closing;
    driver_file *f = (driver_file *)file;
    if (target.error == 0 && ftruncate(target.fd, (off_t)f->eoa) != 0) target.error = errno;
    f->eof = f->eoa;
    return 0;
}

static hid_t driver_id(void) {
    static hid_t id = H5I_INVALID_HID;
    static const H5FD_class_t driver = {
#if H5_VERSION_GE(1, 13, 0)
        .version = H5FD_CLASS_VERSION,
        .value = (H5FD_class_value_t)500, /* 256 to 511 are for drivers that nobody registered */
#endif
        .name = "sago-layout",
        .maxaddr = INT64_MAX,
        .fc_degree = H5F_CLOSE_SEMI,
        .open = driver_open,
        .close = driver_close,
        .get_eoa = driver_get_eoa,
        .set_eoa = driver_set_eoa,
        .get_eof = driver_get_eof,
        .read = driver_read,
        .write = driver_write,
        .truncate = driver_truncate,
        .fl_map = H5FD_FLMAP_DICHOTOMY,
    };
    if (id < 0) id = H5FDregister(&driver);
    return id;
}

/* --- laying out a file --- */

static hid_t make_access_list(void) {
    hid_t list = H5Pcreate(H5P_FILE_ACCESS);
    /* Closing the file must fail while any object in it is open, not wait for it in silence. */
    H5Pset_fclose_degree(list, H5F_CLOSE_SEMI);
    H5Pset_alignment(list, 65536, 4096);
#if H5_VERSION_GE(1, 12, 1) || (H5_VERSION_GE(1, 10, 7) && !H5_VERSION_GE(1, 12, 0))
    H5Pset_file_locking(
        list, false, true); /* a step is written once under a name of its own; many file systems lack locks */
#endif
    return list;
}

static hid_t open_type(sago_dtype dtype) {
    switch (dtype) {
    case SAGO_F32:
        return H5Tcopy(H5T_IEEE_F32LE);
    case SAGO_I32:
        return H5Tcopy(H5T_STD_I32LE);
    case SAGO_U8:
        return H5Tcopy(H5T_STD_U8LE);
    default:
        break;
    }
    /* bf16, which HDF5 has no name for: sign at bit 15, 8 bits of exponent at 7, 7 of mantissa at 0. */
    hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    if (type < 0 || H5Tset_fields(type, 15, 7, 8, 0, 7) < 0 || H5Tset_size(type, 2) < 0 ||
        H5Tset_ebias(type, 127) < 0) {
        if (type >= 0) H5Tclose(type);
        return -1;
    }
    return type;
}

static bool add_attribute(hid_t object, const char *name, const int64_t *values, int n) {
    hsize_t dims = (hsize_t)n;
    hid_t space = H5Screate_simple(1, &dims, NULL);
    hid_t attribute = H5Acreate2(object, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    bool good = attribute >= 0 && H5Awrite(attribute, H5T_NATIVE_INT64, values) >= 0;
    if (attribute >= 0 && H5Aclose(attribute) < 0) good = false;
    if (space >= 0) H5Sclose(space);
    return good;
}

/* "/param/x", and where it is a part "/param/x@128,0": the offset keeps the names of two parts apart. */
static char *dataset_name(const sago_piece *p) {
    bool whole = p->shape[0] == p->global_shape[0] && (p->n_dims == 1 || p->shape[1] == p->global_shape[1]);
    if (whole) return sago_format("/%s", p->name);
    if (p->n_dims == 1) return sago_format("/%s@%" PRId64, p->name, p->offset[0]);
    return sago_format("/%s@%" PRId64 ",%" PRId64, p->name, p->offset[0], p->offset[1]);
}

static bool make_dataset(hid_t file, hid_t creation, const sago_piece *p, sago_manifest_piece *entry) {
    hsize_t dims[2] = {(hsize_t)p->shape[0], (hsize_t)p->shape[1]};
    hid_t type = open_type(p->dtype), space = H5Screate_simple(p->n_dims, dims, NULL);
    hid_t set = H5Dcreate2(file, entry->dataset, type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    bool good = set >= 0;
    if (good) {
        good = add_attribute(set, "offset", p->offset, p->n_dims) &&
               add_attribute(set, "global_shape", p->global_shape, p->n_dims);
        haddr_t at = H5Dget_offset(set);
        good = good && at != HADDR_UNDEF;
        entry->at = (int64_t)at;
        if (H5Dclose(set) < 0) good = false;
    }
    if (space >= 0) H5Sclose(space);
    if (type >= 0) H5Tclose(type);
    return good;
}

/* Makes the groups of "/param/x" that are not there yet. Clocks stay out of them: the same state gives the
 * same bytes. */
static bool make_groups(hid_t file, const char *dataset, hid_t creation) {
    bool good = true;
    char *path = sago_strdup(dataset);
    for (char *end = strchr(path + 1, '/'); end && good; end = strchr(end + 1, '/')) {
        *end = '\0';
        if (H5Lexists(file, path, H5P_DEFAULT) <= 0) {
            hid_t group = H5Gcreate2(file, path, H5P_DEFAULT, creation, H5P_DEFAULT);
            good = group >= 0 && H5Gclose(group) >= 0;
        }
        *end = '/';
    }
    free(path);
    return good;
}

static bool make_datasets(hid_t file, const sago_piece pieces[], int n, sago_manifest_piece entries[]) {
    hid_t groups = H5Pcreate(H5P_GROUP_CREATE), creation = H5Pcreate(H5P_DATASET_CREATE);
    bool good = groups >= 0 && creation >= 0 && H5Pset_obj_track_times(groups, false) >= 0 &&
                H5Pset_obj_track_times(creation, false) >= 0 &&
                H5Pset_layout(creation, H5D_CONTIGUOUS) >= 0 &&
                H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY) >= 0 &&
                H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER) >= 0;
    for (int i = 0; good && i < n; i++)
        if (entries[i].dataset)
            good = make_groups(file, entries[i].dataset, groups) &&
                   make_dataset(file, creation, &pieces[i], &entries[i]);
    if (groups >= 0) H5Pclose(groups);
    if (creation >= 0) H5Pclose(creation);
    return good;
}

static sago_status lay_out(int fd, const char *path, int64_t step, const sago_piece pieces[], int n,
                           sago_manifest_piece entries[]) {
    hid_t access = make_access_list(), creation = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18);
    H5Pset_obj_track_times(creation, false);
    H5Pset_driver(access, driver_id(), NULL);
    target.fd = fd;
    target.error = 0;
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, creation, access);
    sago_status status = SAGO_OK;
    if (file < 0) {
        status = fail_hdf5(path, "make the file");
    } else {
        if (!add_attribute(file, "sago_step", &step, 1) || !make_datasets(file, pieces, n, entries))
            status = fail_hdf5(path, "lay out the file");
        if (H5Fclose(file) < 0 && status == SAGO_OK) status = fail_hdf5(path, "close the file");
    }
    errno = target.error;
    if (status == SAGO_OK && errno) status = sago_fail_errno(SAGO_E_IO, "%s: cannot write", path);
    H5Pclose(access);
    H5Pclose(creation);
    return status;
}

/* --- the bytes --- */

/* The state of the one pass over a file in the order of its bytes. */
typedef struct pass {
    const char *path;
    int fd;
    int64_t at;
    XXH3_state_t *hash;
} pass;

static sago_status write_block(pass *w, const char *data, size_t bytes) {
    if (!write_at(w->fd, data, bytes, w->at)) return sago_fail_errno(SAGO_E_IO, "%s: cannot write", w->path);
#ifdef SYNC_FILE_RANGE_WRITE
    /* Starts writing back while the next block is hashed, so that the fsync at the end finds little left. A
     * hint only. */
    if (bytes == SAGO_HASH_BLOCK_BYTES) sync_file_range(w->fd, w->at, (off64_t)bytes, SYNC_FILE_RANGE_WRITE);
#endif
    XXH3_64bits_update(w->hash, data, bytes);
    w->at += (int64_t)bytes;
    return SAGO_OK;
}

/* What HDF5 laid out between the tensors. */
static sago_status hash_gap(pass *w, int64_t end) {
    char bytes[16384];
    while (w->at < end) {
        size_t want = end - w->at < (int64_t)sizeof bytes ? (size_t)(end - w->at) : sizeof bytes;
        ssize_t got = pread(w->fd, bytes, want, w->at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return sago_fail_errno(SAGO_E_IO, "%s: cannot read back", w->path);
        XXH3_64bits_update(w->hash, bytes, (size_t)got);
        w->at += got;
    }
    return SAGO_OK;
}

/* buffer: room for a block, where the piece is not in the host's memory. */
static sago_status write_piece(pass *w, const sago_piece *p, char *buffer, sago_manifest_piece *entry) {
    int64_t bytes = (int64_t)sago_piece_bytes(p), element = (int64_t)sago_dtype_bytes(p->dtype);
    SAGO_TRY(hash_gap(w, entry->at));
    entry->n_hashes = (bytes + SAGO_HASH_BLOCK_BYTES - 1) / SAGO_HASH_BLOCK_BYTES;
    entry->hashes = sago_alloc((size_t)entry->n_hashes * sizeof *entry->hashes);
    for (int64_t i = 0; i < entry->n_hashes; i++) {
        int64_t from = i * SAGO_HASH_BLOCK_BYTES, left = bytes - from;
        size_t block = left < SAGO_HASH_BLOCK_BYTES ? (size_t)left : SAGO_HASH_BLOCK_BYTES;
        const char *data = p->remote ? buffer : (const char *)p->data + from;
        if (p->remote)
            SAGO_TRY(p->remote->read(p->remote->context, buffer, p->first_remote + from / element,
                                     (int64_t)block / element));
        SAGO_TRY(write_block(w, data, block));
        entry->hashes[i] = XXH3_64bits(data, block);
    }
    return SAGO_OK;
}

typedef struct region {
    int64_t at;
    int index;
} region;

static int by_place(const void *a, const void *b) {
    int64_t x = ((const region *)a)->at, y = ((const region *)b)->at;
    return (x > y) - (x < y);
}

static sago_status write_regions(pass *w, const sago_piece pieces[], const region order[], int n,
                                 sago_manifest_piece entries[]) {
    for (int i = 0; i < n; i++) {
        const sago_piece *p = &pieces[order[i].index];
        char *buffer = p->remote ? sago_alloc(SAGO_HASH_BLOCK_BYTES) : NULL;
        sago_status status = write_piece(w, p, buffer, &entries[order[i].index]);
        free(buffer);
        SAGO_TRY(status);
    }
    off_t end = lseek(w->fd, 0, SEEK_END);
    SAGO_TRY(hash_gap(w, (int64_t)end));
    return fsync(w->fd) == 0 ? SAGO_OK : sago_fail_errno(SAGO_E_IO, "%s: cannot sync", w->path);
}

static sago_status write_bytes(const char *path, int fd, const sago_piece pieces[], int n,
                               sago_manifest_file *file, sago_manifest_piece entries[]) {
    region *order = sago_alloc((size_t)n * sizeof *order);
    int n_regions = 0;
    for (int i = 0; i < n; i++)
        if (entries[i].dataset) order[n_regions++] = (region){entries[i].at, i};
    qsort(order, (size_t)n_regions, sizeof *order, by_place);
    pass w = {.path = path, .fd = fd, .hash = XXH3_createState()};
    XXH3_64bits_reset(w.hash);
    sago_status status = write_regions(&w, pieces, order, n_regions, entries);
    file->bytes = w.at;
    file->hash = XXH3_64bits_digest(w.hash);
    XXH3_freeState(w.hash);
    free(order);
    return status;
}

sago_status sago_shard_write(const char *path, int64_t step, const sago_piece pieces[], int n,
                             sago_manifest_file *file, sago_manifest_piece entries[]) {
    *file = (sago_manifest_file){.name = sago_strdup(sago_path_base(path))};
    for (int i = 0; i < n; i++) {
        const sago_piece *p = &pieces[i];
        entries[i] = (sago_manifest_piece){.offset = {p->offset[0], p->n_dims == 2 ? p->offset[1] : 0},
                                           .shape = {p->shape[0], p->n_dims == 2 ? p->shape[1] : 1}};
        if (entries[i].shape[0] > 0 && entries[i].shape[1] > 0) entries[i].dataset = dataset_name(p);
    }
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) return sago_fail_errno(SAGO_E_IO, "%s: cannot make the file", path);
    enter_library();
    sago_status status = lay_out(fd, path, step, pieces, n, entries);
    leave_library();
    if (status == SAGO_OK) status = write_bytes(path, fd, pieces, n, file, entries);
    if (close(fd) != 0 && status == SAGO_OK) status = sago_fail_errno(SAGO_E_IO, "%s: cannot close", path);
    if (status != SAGO_OK) unlink(path);
    return status;
}

/* --- what HDF5 sees --- */

static bool dataset_agrees(hid_t file, const sago_manifest_tensor *t, const sago_manifest_piece *p) {
    hid_t set = H5Dopen2(file, p->dataset, H5P_DEFAULT);
    if (set < 0) return false;
    hid_t space = H5Dget_space(set), type = H5Dget_type(set), creation = H5Dget_create_plist(set),
          want = open_type(t->dtype);
    hsize_t dims[2] = {0, 1};
    bool good = space >= 0 && type >= 0 && creation >= 0 && want >= 0 && H5Tequal(type, want) > 0 &&
                H5Pget_layout(creation) == H5D_CONTIGUOUS && H5Sget_simple_extent_ndims(space) == t->n_dims &&
                H5Sget_simple_extent_dims(space, dims, NULL) == t->n_dims &&
                (int64_t)dims[0] == p->shape[0] && (t->n_dims == 1 || (int64_t)dims[1] == p->shape[1]) &&
                (int64_t)H5Dget_offset(set) == p->at;
    if (space >= 0) H5Sclose(space);
    if (type >= 0) H5Tclose(type);
    if (want >= 0) H5Tclose(want);
    if (creation >= 0) H5Pclose(creation);
    H5Dclose(set);
    return good;
}

static sago_status check_file(const char *path, const sago_manifest *m, int number) {
    hid_t access = make_access_list();
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, access);
    H5Pclose(access);
    if (file < 0) {
        fail_hdf5(path, "open the file");
        return sago_wrap(SAGO_E_CORRUPT, "not a shard of sago");
    }
    sago_status status = SAGO_OK;
    for (int i = 0; status == SAGO_OK && i < m->n_tensors; i++)
        for (int k = 0; status == SAGO_OK && k < m->tensors[i].n_pieces; k++) {
            const sago_manifest_piece *p = &m->tensors[i].pieces[k];
            if (p->file == number && !dataset_agrees(file, &m->tensors[i], p))
                status = sago_fail(SAGO_E_CORRUPT, "%s: dataset %s is not what MANIFEST.json says", path,
                                   p->dataset);
        }
    if (H5Fclose(file) < 0 && status == SAGO_OK) status = fail_hdf5(path, "close the file");
    return status;
}

sago_status sago_shard_check(const char *path, const sago_manifest *manifest, int file) {
    enter_library();
    sago_status status = check_file(path, manifest, file);
    leave_library();
    return status;
}
