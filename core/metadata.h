/* metadata.h - what a plugin file says about itself, read from its section .tide without running any of its code. */
#ifndef TIDE_METADATA_H
#define TIDE_METADATA_H
#include <tide/tide.h>

/** The text of section .tide, cut into its fields; they point into text. provides: words "layer:Linear", one space apart. */
typedef struct {
    char *text;
    const char *name, *version, *licence, *provides;
    unsigned abi_major, abi_minor;
} tdi_meta;

/**
 * Reads the metadata of a plugin from the bytes of its file.
 *
 * out     to be freed with tdi_meta_free; after false only what was read before the fault is set (a plugin of another ABI has its name)
 * why     after false: what was found and what was needed
 */
bool tdi_elf_read(const uint8_t *bytes, size_t n, tdi_meta *out, char *why, size_t room);
/** The same of an open file, of which only headers and the section are read. */
bool tdi_elf_read_file(int fd, tdi_meta *out, char *why, size_t room);
void tdi_meta_free(tdi_meta *);

/** Whether the plugin announces kind:name, "layer", "Linear". */
bool tdi_meta_announces(const tdi_meta *, const char *kind, const char *name);

#endif
