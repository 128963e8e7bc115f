/* SPDX-License-Identifier: Apache-2.0
 *
 * See source.h. Cell: u64 session, u64 seen, u64 ok, u64 orphans, u64 waiting since, u16 name
 * bytes, u16 text bytes, name, text. */
#include "broker/core/base/counter.h"
#include "broker/core/base/name.h"
#include "broker/core/base/text.h"
#include "broker/core/job/source.h"
#include "broker/core/session/session.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"

size_t source_encode(uint8_t buf[SOURCE_BYTES_MAX], const struct source *source)
{
	put_be64(buf, source->session);
	put_be64(buf + 8, source->seen_ms);
	put_be64(buf + 16, source->ok_ms);
	put_be64(buf + 24, source->orphans);
	put_be64(buf + 32, source->waiting_ms);
	put_be16(buf + 40, (uint16_t)source->name.len);
	put_be16(buf + 42, (uint16_t)source->text.len);
	memcpy(buf + SOURCE_FIXED_BYTES, source->name.data, source->name.len);
	if (source->text.len > 0)
		memcpy(buf + SOURCE_FIXED_BYTES + source->name.len, source->text.data,
		       source->text.len);
	return SOURCE_FIXED_BYTES + source->name.len + source->text.len;
}

int source_decode(struct sluice_slice value, struct source *ret)
{
	const uint8_t *at = value.data;
	size_t name, text;

	if (value.len < SOURCE_FIXED_BYTES)
		return store_damaged("its content is not valid");
	name = get_be16(at + 40);
	text = get_be16(at + 42);
	if (value.len != SOURCE_FIXED_BYTES + name + text || name >= SOURCE_NAME_BYTES ||
	    text > LIMIT_TEXT_BYTES_MAX)
		return store_damaged("its content is not valid");
	*ret = (struct source){.session = get_be64(at),
			       .seen_ms = get_be64(at + 8),
			       .ok_ms = get_be64(at + 16),
			       .orphans = get_be64(at + 24),
			       .waiting_ms = get_be64(at + 32),
			       .name = {at + SOURCE_FIXED_BYTES, name},
			       .text = {at + SOURCE_FIXED_BYTES + name, text}};
	return 0;
}

int source_get(struct store_txn *txn, uint32_t gateway, uint64_t number, struct source *ret)
{
	struct sluice_slice value;
	struct key key;
	int rc;

	key_hot(&key, gateway, HOT_SOURCE, number);
	rc = store_get(txn, STORE_HOT, key_slice(&key), &value);
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
	return source_decode(value, ret);
}

int source_name_get(struct store_txn *txn, uint32_t gateway, uint64_t number,
		    char ret[SOURCE_NAME_BYTES])
{
	struct source source;
	int rc = source_get(txn, gateway, number, &source);

	if (rc != 0)
		return rc;
	memcpy(ret, source.name.data, source.name.len);
	ret[source.name.len] = 0;
	return 0;
}

/* Texts may be borrowed from the cell that is replaced. */
static int source_put(struct apply *a, uint64_t number, const struct source *source)
{
	uint8_t buf[SOURCE_BYTES_MAX];
	size_t bytes = source_encode(buf, source);
	struct key key;

	key_hot(&key, a->gateway, HOT_SOURCE, number);
	return store_put(a->txn, STORE_HOT, key_slice(&key), (struct sluice_slice){buf, bytes});
}

int source_orphans_add(struct apply *a, uint64_t number, int delta)
{
	struct source source;
	int rc = source_get(a->txn, a->gateway, number, &source);

	if (rc != 0)
		return rc;
	if (delta < 0 && source.orphans < (uint64_t)-delta)
		return store_damaged("its content is not valid");
	if (source.orphans == 0)
		source.waiting_ms = a->wall_ms;
	source.orphans += (uint64_t)(int64_t)delta;
	if (source.orphans == 0)
		source.waiting_ms = 0;
	return source_put(a, number, &source);
}

int core_source_find(struct store_txn *txn, uint32_t gateway, struct sluice_slice name,
		     uint64_t *ret)
{
	return name.len == 0 || name.len > LIMIT_NAME_BYTES_MAX
		       ? SLUICE_E_NOT_FOUND
		       : name_find(txn, gateway, NAME_SOURCE, name, ret);
}

/* ---- SOURCE_SEEN ---- */

static int seen_check(struct apply *a, const Sluice__SourceSeen *m, struct outcome *out)
{
	const char *why = NULL;
	int code = name_check(slice_text(m->source), &why), rc;

	if (code != 0)
		return refuse(out, code, "source: %s", why);
	rc = job_text_check(out, "text", m->text, LIMIT_TEXT_BYTES_MAX);
	return rc != 0 || refused(out) ? rc : session_check(a, a->session, out);
}

/* One session speaks for a source; another one has to request a takeover, unless the previous one
 * has ended. */
static int fence(struct apply *a, const Sluice__SourceSeen *m, const struct source *source,
		 struct outcome *out)
{
	struct outcome gone = {0};
	int rc;

	if (source->session == a->session || m->take)
		return 0;
	rc = session_check(a, source->session, &gone);
	if (rc != 0 || refused(&gone))
		return rc;
	return refuse(out, SLUICE_E_CONFLICT,
		      "session %llu represents source %s; wait for its end, or set "
		      "`take`",
		      (unsigned long long)source->session, m->source);
}

static int source_new(struct apply *a, const Sluice__SourceSeen *m, uint64_t *ret,
		      struct outcome *out)
{
	uint64_t count;
	int rc = counter_get(a->txn, a->gateway, COUNTER_SOURCE, &count);

	if (rc == 0 && count >= LIMIT_SOURCES_MAX)
		return refuse(out, SLUICE_E_LIMIT, "the gateway has %llu sources, the maximum",
			      (unsigned long long)count);
	if (rc == 0)
		rc = counter_next(a, COUNTER_SOURCE, ret);
	return rc != 0 ? rc : name_put(a, NAME_SOURCE, slice_text(m->source), *ret);
}

int source_seen_apply(struct apply *a, const Sluice__SourceSeen *m, struct outcome *out)
{
	struct source source = {0};
	uint64_t number;
	int rc = seen_check(a, m, out);

	if (rc != 0 || refused(out))
		return rc;
	rc = core_source_find(a->txn, a->gateway, slice_text(m->source), &number);
	if (rc == SLUICE_E_NOT_FOUND) {
		rc = source_new(a, m, &number, out);
	} else if (rc == 0) {
		rc = source_get(a->txn, a->gateway, number, &source);
		if (rc == 0)
			rc = fence(a, m, &source, out);
	}
	if (rc != 0 || refused(out))
		return rc;
	source.session = a->session;
	source.seen_ms = a->wall_ms;
	if (m->ok)
		source.ok_ms = a->wall_ms;
	source.name = slice_text(m->source);
	source.text = slice_text(m->text);
	return source_put(a, number, &source);
}
