/* SPDX-License-Identifier: Apache-2.0
 * Parts of every read: refusals and texts of a reply, lists of names, the bound of a turn. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/core/base/name.h"
#include "broker/core/base/number.h"
#include "broker/core/base/reply.h"
#include "protocol/text.h"

char *query_text(struct sluice_slice text)
{
	size_t size = text_size(text);
	char *copy = malloc(size);

	if (copy != NULL)
		(void)text_make(copy, size, text);
	return copy;
}

int query_refuse(struct query *q, int code, const char *format, ...)
{
	char text[256];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	text_repair(text);
	q->reply->code = code;
	if (q->reply->text != NULL && q->reply->text != protobuf_c_empty_string)
		free(q->reply->text);
	q->reply->text = strdup(text);
	return q->reply->text == NULL ? SLUICE_E_NOMEM : 0;
}

bool query_spent(const struct query *q)
{
	return store_txn_read_cost(q->txn) >= q->cost_max;
}

int name_each(struct query *q, enum name_kind kind, const char *after, uint32_t max,
	      int (*each)(struct query *q, uint64_t id, void *user), void *user)
{
	const uint32_t rows = rows_max(max);
	struct store_scan *scan;
	struct sluice_slice found, value;
	struct key key;
	int rc;

	if (q->at.name[0] != 0)
		after = q->at.name;
	if (strlen(after) > LIMIT_NAME_BYTES_MAX)
		return query_refuse(q, SLUICE_E_LIMIT,
				    "after has %zu bytes; expected a name, of at most %llu",
				    strlen(after), (unsigned long long)LIMIT_NAME_BYTES_MAX);
	key_name(&key, q->gateway, (uint8_t)kind, slice_text(after));
	rc = store_scan_begin(q->txn, STORE_NAME, key_slice(&key), &scan);
	if (rc != 0)
		return rc;
	while ((rc = store_scan_next(scan, &found, &value)) == 0) {
		struct sluice_slice name;
		uint64_t id = 0;

		if (!key_name_in(found, q->gateway, (uint8_t)kind, &name))
			break;
		if (after[0] != 0 && name.len == strlen(after) &&
		    memcmp(name.data, after, name.len) == 0)
			continue;
		if (q->at.number == rows) {
			q->reply->more = true;
			break;
		}
		q->at.number++;
		rc = number_read(value, &id) && name.len < sizeof(q->at.name)
			     ? each(q, id, user)
			     : store_damaged("its content is not valid");
		if (rc != 0)
			break;
		if (query_spent(q)) {
			memcpy(q->at.name, name.data, name.len);
			q->at.name[name.len] = 0;
			q->again = true;
			break;
		}
	}
	store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}
