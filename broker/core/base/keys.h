/* SPDX-License-Identifier: Apache-2.0
 *
 * Keys: every table's key layout in one place, an encoder and its decoder side by side. Big-endian,
 * gateway first (META excepted), at most 511 bytes. broker/SHAPES.md has the same as a page for
 * people, and broker/core/records.def says which table has which layout.
 *
 * A decoder returns false when the length is not that of its layout. A function key_NAME_in() also
 * returns false when the key is not in the range that the caller scans; it returns the rest of the
 * key.
 */
#ifndef SLUICE_CORE_KEYS_H
#define SLUICE_CORE_KEYS_H

#include <stdbool.h>
#include <string.h>

#include "broker/store/store.h"
#include "broker/util/bytes.h"

/* Lengths; of a name's key, the part before the name. */
enum {
	KEY_GATEWAY_BYTES = 4,
	KEY_ONE_BYTES = KEY_GATEWAY_BYTES + 8,
	KEY_TWO_BYTES = KEY_ONE_BYTES + 8,
	KEY_HOT_BYTES = KEY_GATEWAY_BYTES + 1 + 8,
	KEY_HOT_CURSOR_BYTES = KEY_HOT_BYTES + 8,
	KEY_NAME_HEAD_BYTES = KEY_GATEWAY_BYTES + 1,
	KEY_TOPO_BYTES = KEY_GATEWAY_BYTES + 1 + 8,
	KEY_READY_BYTES = KEY_ONE_BYTES + 1 + 8 + 8,
	KEY_TIMER_BYTES = KEY_ONE_BYTES + 1 + 8 + 8,
	KEY_OWNED_BYTES = KEY_ONE_BYTES + 1 + 8,
	KEY_ORPHAN_BYTES = KEY_OWNED_BYTES + 8,
	KEY_SOURCE_ORPHAN_BYTES = KEY_ORPHAN_BYTES + 8
};

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
	key->len = KEY_GATEWAY_BYTES;
}
static inline void key_u8(struct key *key, uint8_t value)
{
	key->bytes[key->len++] = value;
}
static inline void key_u64(struct key *key, uint64_t value)
{
	put_be64(key->bytes + key->len, value);
	key->len += 8;
}
/* Callers have checked the name against NAME_BYTES_MAX. */
static inline void key_bytes(struct key *key, struct sluice_slice bytes)
{
	memcpy(key->bytes + key->len, bytes.data, bytes.len);
	key->len += bytes.len;
}

/* ---- one number: log (all of one), live, job, session (id), hist, quar (n) ---- */

struct one_key {
	uint32_t gateway;
	uint64_t number;
};
static inline void key_one(struct key *key, uint32_t gateway, uint64_t number)
{
	key_begin(key, gateway);
	key_u64(key, number);
}
static inline bool key_one_decode(struct sluice_slice key, struct one_key *ret)
{
	const uint8_t *at = key.data;

	if (key.len != KEY_ONE_BYTES)
		return false;
	*ret = (struct one_key){.gateway = get_be32(at), .number = get_be64(at + 4)};
	return true;
}
static inline bool key_one_in(struct sluice_slice key, uint32_t gateway, uint64_t *ret_number)
{
	struct one_key one;

	if (!key_one_decode(key, &one) || one.gateway != gateway)
		return false;
	*ret_number = one.number;
	return true;
}

/* ---- two numbers: log (log, base), item (queue, seq), grant (queue, token) ---- */

struct two_key {
	uint32_t gateway;
	uint64_t of;
	uint64_t number;
};
static inline void key_two(struct key *key, uint32_t gateway, uint64_t of, uint64_t number)
{
	key_one(key, gateway, of);
	key_u64(key, number);
}
static inline bool key_two_decode(struct sluice_slice key, struct two_key *ret)
{
	const uint8_t *at = key.data;

	if (key.len != KEY_TWO_BYTES)
		return false;
	*ret = (struct two_key){.gateway = get_be32(at),
				.of = get_be64(at + 4),
				.number = get_be64(at + 12)};
	return true;
}
static inline bool key_two_in(struct sluice_slice key, uint32_t gateway, uint64_t of,
			      uint64_t *ret_number)
{
	struct two_key two;

	if (!key_two_decode(key, &two) || two.gateway != gateway || two.of != of)
		return false;
	*ret_number = two.number;
	return true;
}
/* Whether the key has this number after the gateway; for any layout that has a number there. */
static inline bool key_is_under(struct sluice_slice key, uint32_t gateway, uint64_t of)
{
	const uint8_t *at = key.data;

	return key.len >= KEY_ONE_BYTES && get_be32(at) == gateway && get_be64(at + 4) == of;
}

/* ---- hot cells: kind, id [, sub] ---- */

enum hot_kind {
#define META(name, key, formats, text)
#define HOT(NAME, number, name, layout, formats, text) HOT_##NAME = number,
#define TOPO(NAME, number, name, message, text)
#define RECORD(name, TABLE, layout, formats, text)
#include "broker/core/records.def"
#undef META
#undef HOT
#undef TOPO
#undef RECORD
};
struct hot_key {
	uint32_t gateway;
	uint8_t kind; /* enum hot_kind */
	uint64_t id;
};
static inline void key_hot(struct key *key, uint32_t gateway, enum hot_kind kind, uint64_t id)
{
	key_begin(key, gateway);
	key_u8(key, (uint8_t)kind);
	key_u64(key, id);
}
static inline bool key_hot_decode(struct sluice_slice key, struct hot_key *ret)
{
	const uint8_t *at = key.data;

	if (key.len != KEY_HOT_BYTES)
		return false;
	*ret = (struct hot_key){.gateway = get_be32(at), .kind = at[4], .id = get_be64(at + 5)};
	return true;
}

/* Cursor cells of one stream are adjacent: HOT_CURSOR, stream, cursor. */
struct hot_cursor_key {
	uint32_t gateway;
	uint64_t stream;
	uint64_t cursor;
};
static inline void key_hot_cursor(struct key *key, uint32_t gateway, uint64_t stream,
				  uint64_t cursor)
{
	key_hot(key, gateway, HOT_CURSOR, stream);
	key_u64(key, cursor);
}
static inline bool key_hot_cursor_decode(struct sluice_slice key, struct hot_cursor_key *ret)
{
	const uint8_t *at = key.data;

	if (key.len != KEY_HOT_CURSOR_BYTES || at[4] != HOT_CURSOR)
		return false;
	*ret = (struct hot_cursor_key){.gateway = get_be32(at),
				       .stream = get_be64(at + 5),
				       .cursor = get_be64(at + 13)};
	return true;
}

/* ---- names and definitions ---- */

struct name_key {
	uint32_t gateway;
	uint8_t kind;		  /* enum name_kind */
	struct sluice_slice name; /* borrowed from the key */
};
static inline void key_name(struct key *key, uint32_t gateway, uint8_t kind,
			    struct sluice_slice name)
{
	key_begin(key, gateway);
	key_u8(key, kind);
	key_bytes(key, name);
}
static inline bool key_name_decode(struct sluice_slice key, struct name_key *ret)
{
	const uint8_t *at = key.data;

	if (key.len < KEY_NAME_HEAD_BYTES)
		return false;
	*ret = (struct name_key){.gateway = get_be32(at),
				 .kind = at[4],
				 .name = {at + KEY_NAME_HEAD_BYTES, key.len - KEY_NAME_HEAD_BYTES}};
	return true;
}
static inline bool key_name_in(struct sluice_slice key, uint32_t gateway, uint8_t kind,
			       struct sluice_slice *ret_name)
{
	struct name_key name;

	if (!key_name_decode(key, &name) || name.gateway != gateway || name.kind != kind)
		return false;
	*ret_name = name.name;
	return true;
}

struct topo_key {
	uint32_t gateway;
	uint8_t kind; /* enum topo_kind */
	uint64_t id;
};
static inline void key_topo(struct key *key, uint32_t gateway, uint8_t kind, uint64_t id)
{
	key_begin(key, gateway);
	key_u8(key, kind);
	key_u64(key, id);
}
static inline bool key_topo_decode(struct sluice_slice key, struct topo_key *ret)
{
	const uint8_t *at = key.data;

	if (key.len != KEY_TOPO_BYTES)
		return false;
	*ret = (struct topo_key){.gateway = get_be32(at), .kind = at[4], .id = get_be64(at + 5)};
	return true;
}
static inline bool key_topo_in(struct sluice_slice key, uint32_t gateway, uint8_t kind,
			       uint64_t *ret_id)
{
	struct topo_key topo;

	if (!key_topo_decode(key, &topo) || topo.gateway != gateway || topo.kind != kind)
		return false;
	*ret_id = topo.id;
	return true;
}

/* ---- ready: the highest priority first ---- */

struct ready_key {
	uint32_t gateway;
	uint64_t queue;
	uint8_t priority;
	uint64_t tag;
	uint64_t seq;
};
static inline void key_ready(struct key *key, uint32_t gateway, uint64_t queue, uint8_t priority,
			     uint64_t tag, uint64_t seq)
{
	key_one(key, gateway, queue);
	key_u8(key, (uint8_t)(255 - priority));
	key_u64(key, tag);
	key_u64(key, seq);
}
static inline bool key_ready_decode(struct sluice_slice key, struct ready_key *ret)
{
	const uint8_t *at = key.data;

	if (key.len != KEY_READY_BYTES)
		return false;
	*ret = (struct ready_key){.gateway = get_be32(at),
				  .queue = get_be64(at + 4),
				  .priority = (uint8_t)(255 - at[12]),
				  .tag = get_be64(at + 13),
				  .seq = get_be64(at + 21)};
	return true;
}

/* ---- timer ---- */

struct timer_key {
	uint32_t gateway;
	uint64_t due_mono_ms;
	uint8_t kind; /* enum timer_kind */
	uint64_t id;
	uint64_t sub;
};
static inline void key_timer(struct key *key, uint32_t gateway, uint64_t due_mono_ms, uint8_t kind,
			     uint64_t id, uint64_t sub)
{
	key_one(key, gateway, due_mono_ms);
	key_u8(key, kind);
	key_u64(key, id);
	key_u64(key, sub);
}
static inline bool key_timer_decode(struct sluice_slice key, struct timer_key *ret)
{
	const uint8_t *at = key.data;

	if (key.len != KEY_TIMER_BYTES)
		return false;
	*ret = (struct timer_key){.gateway = get_be32(at),
				  .due_mono_ms = get_be64(at + 4),
				  .kind = at[12],
				  .id = get_be64(at + 13),
				  .sub = get_be64(at + 21)};
	return true;
}

/* ---- owned ---- */

struct owned_key {
	uint32_t gateway;
	uint64_t session;
	uint8_t kind; /* enum owned_kind */
	uint64_t id;
};
static inline void key_owned(struct key *key, uint32_t gateway, uint64_t session, uint8_t kind,
			     uint64_t id)
{
	key_one(key, gateway, session);
	key_u8(key, kind);
	key_u64(key, id);
}
static inline bool key_owned_decode(struct sluice_slice key, struct owned_key *ret)
{
	const uint8_t *at = key.data;

	if (key.len != KEY_OWNED_BYTES)
		return false;
	*ret = (struct owned_key){.gateway = get_be32(at),
				  .session = get_be64(at + 4),
				  .kind = at[12],
				  .id = get_be64(at + 13)};
	return true;
}
static inline bool key_owned_in(struct sluice_slice key, uint32_t gateway, uint64_t session,
				uint8_t kind, uint64_t *ret_id)
{
	struct owned_key owned;

	if (!key_owned_decode(key, &owned) || owned.gateway != gateway ||
	    owned.session != session || owned.kind != kind)
		return false;
	*ret_id = owned.id;
	return true;
}

/* Under session 0, that is of no session: kind, queue [, source], job. */
struct orphan_key {
	uint32_t gateway;
	uint8_t kind; /* enum owned_kind */
	uint64_t queue;
	uint64_t source; /* 0: not in the key */
	uint64_t job;
};
static inline void key_orphan(struct key *key, uint32_t gateway, uint8_t kind, uint64_t queue,
			      uint64_t source, uint64_t job)
{
	key_owned(key, gateway, 0, kind, queue);
	if (source != 0)
		key_u64(key, source);
	key_u64(key, job);
}
static inline bool key_orphan_decode(struct sluice_slice key, struct orphan_key *ret)
{
	const bool sourced = key.len == KEY_SOURCE_ORPHAN_BYTES;
	const uint8_t *at = key.data;

	if ((!sourced && key.len != KEY_ORPHAN_BYTES) || get_be64(at + 4) != 0)
		return false;
	*ret = (struct orphan_key){.gateway = get_be32(at),
				   .kind = at[12],
				   .queue = get_be64(at + 13),
				   .source = sourced ? get_be64(at + 21) : 0,
				   .job = get_be64(at + (sourced ? 29 : 21))};
	return true;
}

#endif
