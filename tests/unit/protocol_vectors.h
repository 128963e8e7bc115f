/* SPDX-License-Identifier: Apache-2.0
 * The byte vectors of tests/data/protocol, and helpers of the protocol's tests. */
#ifndef TESTS_PROTOCOL_VECTORS_H
#define TESTS_PROTOCOL_VECTORS_H

#include "protocol/envelope.h"
#include "protocol/frame.h"

/* The bytes of NAME.hex, malloc'd; fails the test when it cannot be read. Comments start with
 * '#'. */
struct sluice_slice vector_load(const char *name);
/* The body of a vector that is one frame of this type and correlation; its header is checked.
 * malloc'd. */
struct sluice_slice vector_body(const char *name, uint8_t type, uint32_t corr);
/* Fails the test unless the bytes are those of NAME.hex, behind the frame header. */
void vector_body_equals(const char *name, const void *bytes, size_t len);
/* A copy of exactly len bytes in memory of its own, so that a sanitizer sees a read beyond it. */
struct sluice_slice slice_copy(const void *bytes, size_t len);

struct sluice_slice text(const char *text);
bool slice_is(struct sluice_slice slice, const char *text);

#endif
