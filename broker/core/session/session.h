/* SPDX-License-Identifier: Apache-2.0
 * Sessions: their record, and the entries that they own. dispatch/session_end.c opens and ends
 * them. */
#ifndef SLUICE_CORE_SESSION_SESSION_H
#define SLUICE_CORE_SESSION_SESSION_H

#include "broker/core/base/reply.h"
#include "broker/core/base/state.h"

enum { OWNED_AT_ONCE = 64 };

struct session {
	bool ended;    /* only sweeping is left to do */
	uint8_t flags; /* enum session_flag */
	uint8_t face;
	uint8_t secret[16];
	uint32_t timeout_ms;
	uint64_t opened_ms; /* wall */
	struct sluice_slice name, client, principal, via, address;
};
/* The record. encode returns the bytes written; a decoded session borrows its texts from the
 * value. */
enum {
	SESSION_FIXED_BYTES = 1 + 16 + 4 + 8 + 2 + 2,
	SESSION_MORE_BYTES = 1 + 2 + 2 + 2, /* before the texts; not in format 1 */
	SESSION_BYTES_MAX = SESSION_FIXED_BYTES + SESSION_MORE_BYTES + LIMIT_SIZE(NAME_BYTES_MAX) +
			    LIMIT_SIZE(TEXT_BYTES_MAX) + 2 * SESSION_WHO_BYTES_MAX +
			    SESSION_ADDRESS_BYTES_MAX
};
size_t session_encode(uint8_t buf[SESSION_BYTES_MAX], const struct session *session);
int session_decode(struct sluice_slice value, struct session *ret) SLUICE_MUST_USE; /* CORRUPT */
/* Texts are borrowed until the next write. NOT_FOUND, CORRUPT. */
int session_get(struct store_txn *txn, uint32_t gateway, uint64_t id,
		struct session *ret) SLUICE_MUST_USE;
/* Texts borrowed from the store must be of the last read, with no write since: they are encoded
 * before this writes. */
int session_put(struct apply *a, uint64_t id, const struct session *session) SLUICE_MUST_USE;

int session_check(struct apply *a, uint64_t session,
		  struct outcome *out) SLUICE_MUST_USE; /* refuses SESSION_GONE */
enum owned_kind {
#define OWNED(NAME, number, find, end, text) OWNED_##NAME = number,
#include "broker/core/owned.def"
#undef OWNED
	OWNED_KIND_COUNT
};
/* The value of an entry: u64 sub, then what its kind adds, which may be nothing. A reader accepts
 * more than it knows. encode returns the bytes written. */
struct owned_value {
	uint64_t sub;
	struct sluice_slice more; /* borrowed from the value */
};
static inline size_t owned_value_encode(uint8_t *buf, const struct owned_value *value)
{
	put_be64(buf, value->sub);
	if (value->more.len > 0)
		memcpy(buf + 8, value->more.data, value->more.len);
	return 8 + value->more.len;
}
/* False: it is too short. */
static inline bool owned_value_decode(struct sluice_slice bytes, struct owned_value *ret)
{
	if (bytes.len < 8)
		return false;
	ret->sub = get_be64(bytes.data);
	ret->more = (struct sluice_slice){(const uint8_t *)bytes.data + 8, bytes.len - 8};
	return true;
}
int session_own(struct apply *a, uint64_t session, enum owned_kind kind, uint64_t id,
		uint64_t sub) SLUICE_MUST_USE;
int session_disown(struct apply *a, uint64_t session, enum owned_kind kind,
		   uint64_t id) SLUICE_MUST_USE;
/* Calls each for the owned entries of a session with ids from `from` on, at most max; each may
 * disown its entry. A result of each other than 0 ends the walk and is returned. */
int session_owned_each(struct apply *a, uint64_t session, enum owned_kind kind, uint64_t from,
		       uint32_t max,
		       int (*each)(struct apply *a, uint64_t id, uint64_t sub, void *user),
		       void *user) SLUICE_MUST_USE;
/* One entry that a session owns. */
struct owned_entry {
	uint8_t kind; /* enum owned_kind */
	bool damaged; /* of the value: sub is not known */
	uint64_t id, sub;
};
/* Kinds of entries that sessions own, one row per kind (owned.def). dispatch fills the table, so
 * that this folder calls no noun. */
struct owned_ops {
	/* Where the value of an entry is damaged: reads sub elsewhere. NOT_FOUND, CORRUPT: not
	 * possible. */
	int (*find)(struct apply *a, uint64_t id, uint64_t *ret_sub);
	/* The session has ended: ends the entry, as far as *io_work (at least 1) allows; *io_work
	 * is reduced. */
	int (*end)(struct apply *a, uint64_t session, uint64_t sub, uint64_t id, uint32_t *io_work,
		   bool *ret_done);
};
/* NULL: a session owns nothing of this kind. */
static inline const struct owned_ops *owned_ops_of(const struct apply *a, uint8_t kind)
{
	return kind < OWNED_KIND_COUNT && a->core->owned[kind].end != NULL ? &a->core->owned[kind]
									   : NULL;
}
/* Up to max entries of a session from the key `from` on; kind 0: of all kinds. Copied, so that the
 * table may be written. */
int session_owned_gather(struct apply *a, const struct key *from, uint8_t kind,
			 struct owned_entry *ret, size_t max, size_t *ret_count) SLUICE_MUST_USE;

/* The session's name, or the name of its client, for texts; malloc'd. NOT_FOUND when it does not
 * exist any more. Any transaction. */
int session_label(struct store_txn *txn, uint32_t gateway, uint64_t session,
		  char **ret) SLUICE_MUST_USE;
/* The same, and the address that it was opened from; both malloc'd, also when one of them
 * failed. */
int session_holder(struct store_txn *txn, uint32_t gateway, uint64_t session, char **ret_label,
		   char **ret_address) SLUICE_MUST_USE;

int session_query(struct query *q, const Sluice__Request *request); /* session_list */

#endif
