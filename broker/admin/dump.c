/* SPDX-License-Identifier: Apache-2.0
 * The offline dump, see dump.h. Keys are shown as their numbers; values as JSON where they are
 * messages, as text where they are text, else as hex. */
#include "broker/admin/dump.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "broker/core/base/topo.h"
#include "broker/core/job/live.h"
#include "broker/core/stream/segment.h"
#include "broker/util/bytes.h"
#include "protocol/message.h"

static void print_bytes(FILE *to, struct sluice_slice bytes)
{
	const uint8_t *at = bytes.data;
	bool text = bytes.len > 0;

	for (size_t i = 0; i < bytes.len && text; i++)
		text = isprint(at[i]) != 0 && at[i] != '"' && at[i] != '\\';
	if (text) {
		(void)fprintf(to, "\"%.*s\"", (int)bytes.len, (const char *)at);
		return;
	}
	(void)fputs("0x", to);
	for (size_t i = 0; i < bytes.len; i++)
		(void)fprintf(to, "%02x", at[i]);
}

static void print_message(FILE *to, const ProtobufCMessageDescriptor *descriptor,
			  struct sluice_slice bytes)
{
	ProtobufCMessage *message =
		protobuf_c_message_unpack(descriptor, NULL, bytes.len, bytes.data);
	char *json = NULL;

	if (message == NULL || message_json(message, false, &json) != 0)
		print_bytes(to, bytes);
	else
		(void)fputs(json, to);
	free(json);
	if (message != NULL)
		protobuf_c_message_free_unpacked(message, NULL);
}

static bool print_numbers(FILE *to, const uint64_t *numbers, size_t count)
{
	for (size_t i = 0; i < count; i++)
		(void)fprintf(to, "%s%" PRIu64, i == 0 ? "" : "/", numbers[i]);
	return true;
}

#define PRINT_NUMBERS(to, ...)                             \
	print_numbers(to, (const uint64_t[]){__VA_ARGS__}, \
		      sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

static bool print_hot_key(FILE *to, struct sluice_slice key)
{
	struct hot_cursor_key cursor;
	struct hot_key hot;

	if (key_hot_cursor_decode(key, &cursor))
		return PRINT_NUMBERS(to, cursor.gateway, HOT_CURSOR, cursor.stream, cursor.cursor);
	return key_hot_decode(key, &hot) && PRINT_NUMBERS(to, hot.gateway, hot.kind, hot.id);
}

static bool print_name_key(FILE *to, struct sluice_slice key)
{
	struct name_key name;

	if (!key_name_decode(key, &name))
		return false;
	PRINT_NUMBERS(to, name.gateway, name.kind);
	(void)fputc('/', to);
	print_bytes(to, name.name);
	return true;
}

static bool print_topo_key(FILE *to, struct sluice_slice key)
{
	struct topo_key topo;

	return key_topo_decode(key, &topo) && PRINT_NUMBERS(to, topo.gateway, topo.kind, topo.id);
}

static bool print_one_key(FILE *to, struct sluice_slice key)
{
	struct one_key one;

	return key_one_decode(key, &one) && PRINT_NUMBERS(to, one.gateway, one.number);
}

static bool print_two_key(FILE *to, struct sluice_slice key)
{
	struct two_key two;

	return key_two_decode(key, &two) && PRINT_NUMBERS(to, two.gateway, two.of, two.number);
}

/* As stored: a smaller number comes first. */
static bool print_ready_key(FILE *to, struct sluice_slice key)
{
	struct ready_key ready;

	return key_ready_decode(key, &ready) &&
	       PRINT_NUMBERS(to, ready.gateway, ready.queue, 255u - ready.priority, ready.tag,
			     ready.seq);
}

static bool print_timer_key(FILE *to, struct sluice_slice key)
{
	struct timer_key timer;

	return key_timer_decode(key, &timer) &&
	       PRINT_NUMBERS(to, timer.gateway, timer.due_mono_ms, timer.kind, timer.id, timer.sub);
}

static bool print_owned_key(FILE *to, struct sluice_slice key)
{
	struct orphan_key orphan;
	struct owned_key owned;

	if (key_owned_decode(key, &owned))
		return PRINT_NUMBERS(to, owned.gateway, owned.session, owned.kind, owned.id);
	if (!key_orphan_decode(key, &orphan))
		return false;
	return orphan.source != 0 ? PRINT_NUMBERS(to, orphan.gateway, 0, orphan.kind, orphan.queue,
						  orphan.source, orphan.job)
				  : PRINT_NUMBERS(to, orphan.gateway, 0, orphan.kind, orphan.queue,
						  orphan.job);
}

/* Reserved tables have no layout yet. */
static bool (*const print_layout[STORE_TABLE_COUNT])(FILE *to, struct sluice_slice key) = {
	[STORE_HOT] = print_hot_key,	 [STORE_NAME] = print_name_key,
	[STORE_TOPO] = print_topo_key,	 [STORE_LOG] = print_two_key,
	[STORE_ITEM] = print_two_key,	 [STORE_READY] = print_ready_key,
	[STORE_GRANT] = print_two_key,	 [STORE_TIMER] = print_timer_key,
	[STORE_LIVE] = print_one_key,	 [STORE_JOB] = print_one_key,
	[STORE_HIST] = print_one_key,	 [STORE_SESSION] = print_one_key,
	[STORE_OWNED] = print_owned_key, [STORE_QUAR] = print_one_key,
};

/* A key without its table's layout is printed as bytes, like META's text. */
static void print_key(FILE *to, enum store_table table, struct sluice_slice key)
{
	if (print_layout[table] == NULL || !print_layout[table](to, key))
		print_bytes(to, key);
}

static const ProtobufCMessageDescriptor *topo_descriptor(struct sluice_slice key)
{
	struct topo_key topo;

	switch (key_topo_decode(key, &topo) ? topo.kind : 0) {
	case TOPO_STREAM:
		return &sluice__stream_config__descriptor;
	case TOPO_QUEUE:
		return &sluice__queue_config__descriptor;
	case TOPO_ROUTER:
		return &sluice__router_config__descriptor;
	case TOPO_LIFECYCLE:
		return &sluice__lifecycle_config__descriptor;
	default:
		return NULL;
	}
}

static void print_live(FILE *to, struct sluice_slice value)
{
	struct job_live live;

	if (job_live_decode(value, &live) != 0) {
		print_bytes(to, value);
		return;
	}
	(void)fprintf(to,
		      "state %u, %s, attempt %" PRIu32 ", token %" PRIu64 ", holder %" PRIu64
		      ", flags %u, queue %" PRIu64 ", history %" PRIu64,
		      live.state, job_claim_name(live.claim), live.attempt, live.token, live.holder,
		      live.flags, live.queue, live.hist_last);
}

static void print_value(FILE *to, enum store_table table, struct sluice_slice key,
			struct sluice_slice value)
{
	const ProtobufCMessageDescriptor *descriptor =
		table == STORE_TOPO ? topo_descriptor(key) : NULL;

	if (descriptor != NULL)
		print_message(to, descriptor, value);
	else if (table == STORE_LIVE)
		print_live(to, value);
	else if (table == STORE_NAME && value.len == 8)
		(void)fprintf(to, "%" PRIu64, get_be64(value.data));
	else if (value.len == 0)
		(void)fputc('-', to);
	else
		print_bytes(to, value);
}

static int dump_table(struct store_txn *txn, enum store_table table, FILE *to, uint64_t *io_records,
		      uint64_t *io_damaged)
{
	struct store_scan *scan = NULL;
	struct segment_info segment;
	struct sluice_slice key, value;
	int rc = store_scan_begin(txn, table, (struct sluice_slice){NULL, 0}, &scan);

	if (rc == SLUICE_E_CORRUPT) {
		(void)fprintf(to, "! %s\n", store_last_error());
		(*io_damaged)++;
		return 0;
	}
	while (rc == 0) {
		rc = store_scan_next(scan, &key, &value);
		if (rc == SLUICE_E_CORRUPT) {
			(void)fprintf(to, "! %s\n", store_last_error());
			(*io_damaged)++;
			rc = 0;
			continue;
		}
		if (rc != 0)
			break;
		(*io_records)++;
		if (table == STORE_LOG && segment_decode(value, 0, &segment) != 0) {
			(void)fprintf(to, "! table log, key ");
			print_key(to, table, key);
			(void)fprintf(to, ": the segment's length, format or checksum is wrong\n");
			(*io_damaged)++;
			continue;
		}
		(void)fprintf(to, "%s ", store_table_name(table));
		print_key(to, table, key);
		(void)fputc(' ', to);
		print_value(to, table, key, core_record_data(table, key, value));
		(void)fputc('\n', to);
	}
	store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

int dump_store(struct store *store, FILE *to, uint64_t *ret_records, uint64_t *ret_damaged)
{
	struct store_txn *txn = NULL;
	int rc = store_begin_read(store, &txn);

	*ret_records = *ret_damaged = 0;
	for (int table = 0; rc == 0 && table < STORE_TABLE_COUNT; table++)
		rc = dump_table(txn, (enum store_table)table, to, ret_records, ret_damaged);
	store_abort(txn);
	if (rc == 0 && ferror(to))
		rc = SLUICE_E_IO;
	return rc != 0 ? rc : *ret_damaged > 0 ? SLUICE_E_CORRUPT : 0;
}
