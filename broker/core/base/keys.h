/* SPDX-License-Identifier: Apache-2.0
 *
 * Keys: every table's key layout in one place. Big-endian, gateway first (META excepted), at most 511 bytes.
 * broker/SHAPES.md has the same as a page for people.
 */
#ifndef SLUICE_CORE_KEYS_H
#define SLUICE_CORE_KEYS_H

#include <string.h>

#include "broker/store/store.h"
#include "broker/util/bytes.h"

struct key {
	size_t len;
	uint8_t bytes[STORE_KEY_BYTES_MAX];
};

static inline struct sluice_slice key_slice(const struct key *key)
{
	return (struct sluice_slice){key->bytes, key->len};
}

/* Builders append; key_begin starts with the gateway. */
static inline void key_begin(struct key *key, uint32_t gateway)
{
	put_be32(key->bytes, gateway);
	key->len = 4;
}
static inline void key_u8(struct key *key, uint8_t value)
{
	key->bytes[key->len++] = value;
}
static inline void key_u16(struct key *key, uint16_t value)
{
	put_be16(key->bytes + key->len, value);
	key->len += 2;
}
static inline void key_u64(struct key *key, uint64_t value)
{
	put_be64(key->bytes + key->len, value);
	key->len += 8;
}
/* Names are at most NAME_BYTES_MAX bytes (checked before), so they fit whole. */
static inline void key_bytes(struct key *key, struct sluice_slice bytes)
{
	memcpy(key->bytes + key->len, bytes.data, bytes.len);
	key->len += bytes.len;
}

/* hot cells: kind, id [, sub] */
enum hot_kind {
	HOT_COUNTER = 1,
	HOT_LOG,
	HOT_QUEUE,
	HOT_PRODUCER,
	HOT_CURSOR,
	HOT_MACHINE /* how many jobs use it */,
	HOT_SOURCE = 12 /* source.h */
};
static inline void key_hot(struct key *key, uint32_t gateway, enum hot_kind kind, uint64_t id)
{
	key_begin(key, gateway);
	key_u8(key, (uint8_t)kind);
	key_u64(key, id);
}
/* cursor cells of one stream lie together: HOT_CURSOR, stream, cursor */
static inline void key_hot_cursor(struct key *key, uint32_t gateway, uint64_t stream, uint64_t cursor)
{
	key_hot(key, gateway, HOT_CURSOR, stream);
	key_u64(key, cursor);
}
static inline void key_name(struct key *key, uint32_t gateway, uint8_t kind, struct sluice_slice name)
{
	key_begin(key, gateway);
	key_u8(key, kind);
	key_bytes(key, name);
}
static inline void key_topo(struct key *key, uint32_t gateway, uint8_t kind, uint64_t id)
{
	key_begin(key, gateway);
	key_u8(key, kind);
	key_u64(key, id);
}
/* gateway, a [, b]: log (log, base), item (queue, seq), grant (queue, token), live/job/session (id), hist/quar (n) */
static inline void key_one(struct key *key, uint32_t gateway, uint64_t a)
{
	key_begin(key, gateway);
	key_u64(key, a);
}
static inline void key_two(struct key *key, uint32_t gateway, uint64_t a, uint64_t b)
{
	key_one(key, gateway, a);
	key_u64(key, b);
}
static inline void key_ready(struct key *key, uint32_t gateway, uint64_t queue, uint8_t priority,
			     uint64_t tag, uint64_t seq)
{
	key_one(key, gateway, queue);
	key_u8(key, (uint8_t)(255 - priority));
	key_u64(key, tag);
	key_u64(key, seq);
}
static inline void key_timer(struct key *key, uint32_t gateway, uint64_t due_mono_ms, uint8_t kind,
			     uint64_t id, uint64_t sub)
{
	key_one(key, gateway, due_mono_ms);
	key_u8(key, kind);
	key_u64(key, id);
	key_u64(key, sub);
}
static inline void key_owned(struct key *key, uint32_t gateway, uint64_t session, uint8_t kind, uint64_t id)
{
	key_one(key, gateway, session);
	key_u8(key, kind);
	key_u64(key, id);
}

#endif
