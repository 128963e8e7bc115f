/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes in JSON. A file name of the 1990s is Latin-1, an argument of execve() is bytes, and JSON
 * knows characters only. Before a payload is parsed each byte that is no part of a UTF-8 character,
 * and each lone escape \udc80 to \udcff, becomes a private character that stands for the byte;
 * after it the characters become the bytes again. The private characters themselves survive, too:
 * their bytes are hidden one by one.
 */
#ifndef SLUICE_LOCAL_PAYLOAD_BYTES_H
#define SLUICE_LOCAL_PAYLOAD_BYTES_H

#include <stddef.h>

/* The text with its bytes hidden; malloc'd, owned. NULL: no memory. */
char *payload_bytes_hide(const char *text, size_t len, size_t *ret_len);
/* In place; the string gets shorter or stays. */
void payload_bytes_restore(char *string);

#endif
