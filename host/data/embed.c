// SPDX-License-Identifier: Apache-2.0
/* Build-time program: writes files as a C table, so that the program needs no files of its own at run time.
 * Usage: embed OUTPUT.c HEADER TYPE TABLE FOLDER FILE...; names in the table are relative to FOLDER. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void write_bytes(FILE *out, const char *path) {
    FILE *in = fopen(path, "rb");
    if (!in) fail(path);
    int column = 0;
    for (int c; (c = getc(in)) != EOF; column++) fprintf(out, "%s%d,", column % 24 ? "" : "\n", c);
    fclose(in);
}

int main(int argc, char **argv) {
    if (argc < 6) return 2;
    const char *header = argv[2], *type = argv[3], *table = argv[4], *folder = argv[5];
    FILE *out = fopen(argv[1], "w");
    if (!out) fail(argv[1]);
    fprintf(out, "// SPDX-License-Identifier: Apache-2.0\n// Made from %d files by embed.c.\n", argc - 6);
    fprintf(out, "#include \"%s\"\n", header);
    for (int i = 6; i < argc; i++) {
        fprintf(out, "static const unsigned char text_%d[] = {", i);
        write_bytes(out, argv[i]);
        fprintf(out, "0};\n");
    }
    fprintf(out, "const %s %s[] = {\n", type, table);
    for (int i = 6; i < argc; i++) {
        const char *name = argv[i];
        size_t prefix = strlen(folder);
        if (strncmp(name, folder, prefix) == 0) name += prefix + 1;
        fprintf(out, "    {\"%s\", text_%d, sizeof text_%d - 1},\n", name, i, i);
    }
    fprintf(out, "    {0},\n};\n");
    if (fclose(out) != 0) fail(argv[1]);
    return 0;
}
