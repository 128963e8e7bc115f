/* SPDX-License-Identifier: Apache-2.0
 *
 * Names -> numbers.
 */
#ifndef SLUICE_CORE_BASE_NAME_H
#define SLUICE_CORE_BASE_NAME_H

#include "broker/core/base/apply.h"

enum name_kind {
	NAME_STREAM = 1,
	NAME_QUEUE,
	NAME_ROUTER,
	NAME_LIFECYCLE,
	NAME_JOB,
	NAME_SESSION,
	NAME_PRODUCER,
	NAME_CURSOR /* "<stream id>/<name>" */,
	NAME_GATEWAY /* under gateway 0 */,
	NAME_PARKED /* job id -> its newest parked row */,
	NAME_EDGE /* target kind u8, target u64, router u64, pattern -> edge */,
	NAME_SOURCE = 20,
	NAME_QUARANTINED = 30 /* job id -> its newest row in quarantine that is not parked */
};

/* ---- names composed of other values ---- */

/* NAME_EDGE: target kind u8, target u64, router u64, pattern. */
struct edge_name {
	uint8_t target_kind;
	uint64_t target;
	uint64_t router;
	struct sluice_slice pattern; /* borrowed from the name */
};
enum {
	EDGE_NAME_TARGET_BYTES = 1 + 8, /* common prefix of the names of edges to one target */
	EDGE_NAME_HEAD_BYTES = EDGE_NAME_TARGET_BYTES + 8,
	EDGE_NAME_BYTES_MAX = EDGE_NAME_HEAD_BYTES + LIMIT_SIZE(SUBJECT_BYTES_MAX)
};
/* Returns the part of buf that was written; buf has room for the pattern. */
static inline struct sluice_slice edge_name_encode(uint8_t *buf, const struct edge_name *name)
{
	buf[0] = name->target_kind;
	put_be64(buf + 1, name->target);
	put_be64(buf + EDGE_NAME_TARGET_BYTES, name->router);
	if (name->pattern.len > 0)
		memcpy(buf + EDGE_NAME_HEAD_BYTES, name->pattern.data, name->pattern.len);
	return (struct sluice_slice){buf, EDGE_NAME_HEAD_BYTES + name->pattern.len};
}
static inline bool edge_name_decode(struct sluice_slice name, struct edge_name *ret)
{
	const uint8_t *at = name.data;

	if (name.len < EDGE_NAME_HEAD_BYTES)
		return false;
	*ret = (struct edge_name){.target_kind = at[0],
				  .target = get_be64(at + 1),
				  .router = get_be64(at + EDGE_NAME_TARGET_BYTES),
				  .pattern = {at + EDGE_NAME_HEAD_BYTES,
					      name.len - EDGE_NAME_HEAD_BYTES}};
	return true;
}

/* NAME_CURSOR: stream in decimal, '/', name. */
enum { CURSOR_NAME_BYTES_MAX = 20 + 1 + LIMIT_SIZE(NAME_BYTES_MAX) };
/* Returns the part of buf that was written; buf has room for CURSOR_NAME_BYTES_MAX. An empty name
 * gives the common prefix of the stream's names. */
struct sluice_slice cursor_name_encode(char *buf, uint64_t stream, struct sluice_slice name);
bool cursor_name_decode(struct sluice_slice name, uint64_t *ret_stream,
			struct sluice_slice *ret_name);

int name_find(struct store_txn *txn, uint32_t gateway, enum name_kind kind,
	      struct sluice_slice name, uint64_t *ret) SLUICE_MUST_USE;
int name_put(struct apply *a, enum name_kind kind, struct sluice_slice name,
	     uint64_t id) SLUICE_MUST_USE;
int name_del(struct apply *a, enum name_kind kind, struct sluice_slice name) SLUICE_MUST_USE;

#endif
