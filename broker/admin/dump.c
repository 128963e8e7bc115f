/* SPDX-License-Identifier: Apache-2.0
 * The offline dump, see dump.h. Keys are shown as their numbers; values as JSON where they are messages, as text where they are text, else
 * as hex. */
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

static void print_message(FILE *to, const ProtobufCMessageDescriptor *descriptor, struct sluice_slice bytes)
{
	ProtobufCMessage *message = protobuf_c_message_unpack(descriptor, NULL, bytes.len, bytes.data);
	char *json = NULL;

	if (message == NULL || message_json(message, false, &json) != 0)
		print_bytes(to, bytes);
	else
		(void)fputs(json, to);
	free(json);
	if (message != NULL)
		protobuf_c_message_free_unpacked(message, NULL);
}

/* What lies behind the gateway in the key of each table: letters of width, 1 = u8, 8 = u64, s = text. */
static const char *const key_shapes[STORE_TABLE_COUNT] = {
	[STORE_META] = "s",	[STORE_HOT] = "188",   [STORE_NAME] = "1s",    [STORE_TOPO] = "18",
	[STORE_LOG] = "88",	[STORE_ITEM] = "88",   [STORE_READY] = "8188", [STORE_GRANT] = "88",
	[STORE_TIMER] = "8188", [STORE_LIVE] = "8",    [STORE_JOB] = "8",      [STORE_HIST] = "8",
	[STORE_GATE] = "188",	[STORE_SESSION] = "8", [STORE_OWNED] = "818",  [STORE_QUAR] = "8",
	[STORE_NODE] = "8",	[STORE_CHILD] = "8s",  [STORE_NHIST] = "88",   [STORE_CHANGE] = "8",
	[STORE_BLOB] = "88",
};

static void print_key(FILE *to, enum store_table table, struct sluice_slice key)
{
	const uint8_t *at = key.data, *end = at + key.len;

	if (table != STORE_META && key.len >= 4) {
		(void)fprintf(to, "%" PRIu32, get_be32(at));
		at += 4;
	}
	for (const char *shape = key_shapes[table]; *shape != 0 && at < end; shape++) {
		if (at != key.data)
			(void)fputc('/', to);
		if (*shape == '1') {
			(void)fprintf(to, "%u", *at++);
		} else if (*shape == '8' && end - at >= 8) {
			(void)fprintf(to, "%" PRIu64, get_be64(at));
			at += 8;
		} else {
			print_bytes(to, (struct sluice_slice){at, (size_t)(end - at)});
			at = end;
		}
	}
	if (at < end) {
		(void)fputc('/', to);
		print_bytes(to, (struct sluice_slice){at, (size_t)(end - at)});
	}
}

static const ProtobufCMessageDescriptor *topo_descriptor(struct sluice_slice key)
{
	const uint8_t *at = key.data;

	switch (key.len > 4 ? at[4] : 0) {
	case TOPO_STREAM:
		return &sluice__stream_config__descriptor;
	case TOPO_QUEUE:
		return &sluice__queue_config__descriptor;
	case TOPO_ROUTER:
		return &sluice__router_config__descriptor;
	case TOPO_MACHINE:
		return &sluice__machine_config__descriptor;
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

static void print_value(FILE *to, enum store_table table, struct sluice_slice key, struct sluice_slice value)
{
	const ProtobufCMessageDescriptor *descriptor = table == STORE_TOPO ? topo_descriptor(key) : NULL;

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
		print_value(to, table, key, value);
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
