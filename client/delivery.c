/* SPDX-License-Identifier: Apache-2.0
 * Deliveries that the application owns: one block that holds all that the view points to. Nothing of them belongs to the client. */
#include <string.h>

#include "client/sub.h"

static uint8_t *place(uint8_t **io_at, const void *bytes, size_t len)
{
	uint8_t *at = *io_at;

	if (len > 0)
		memcpy(at, bytes, len);
	at[len] = 0;
	*io_at += len + 1;
	return at;
}

static size_t text_len(const char *text)
{
	return text != NULL ? strlen(text) + 1 : 0;
}

sluice_delivery *delivery_copy(const sluice_delivery_view *view)
{
	size_t headers = 0, header_bytes = 0, bytes;
	sluice_delivery *delivery = mem_alloc(sizeof(*delivery));
	uint8_t *at;

	while (view->headers != NULL && view->headers[headers] != NULL)
		header_bytes += strlen(view->headers[headers++]) + 1;
	bytes = (headers + 1) * sizeof(char *) + header_bytes + view->key.len + view->id.len +
		view->body.len + 3 + text_len(view->subject) + text_len(view->job) + text_len(view->owner) +
		text_len(view->state) + text_len(view->tag) + text_len(view->scheduler_ref) +
		text_len(view->text);
	if (delivery == NULL || (delivery->bytes = mem_alloc(bytes)) == NULL) {
		mem_free(delivery);
		return NULL;
	}
	delivery->view = *view;
	at = delivery->bytes + (headers + 1) * sizeof(char *);
	if (view->headers != NULL) {
		const char **list = (const char **)(void *)delivery->bytes;

		for (size_t i = 0; i < headers; i++)
			list[i] = (const char *)place(&at, view->headers[i], strlen(view->headers[i]));
		delivery->view.headers = list;
	}
	delivery->view.key.data = place(&at, view->key.data, view->key.len);
	delivery->view.id.data = place(&at, view->id.data, view->id.len);
	delivery->view.body.data = place(&at, view->body.data, view->body.len);
#define TEXT(member)              \
	if (view->member != NULL) \
	delivery->view.member = (const char *)place(&at, view->member, strlen(view->member))
	TEXT(subject);
	TEXT(job);
	TEXT(owner);
	TEXT(state);
	TEXT(tag);
	TEXT(scheduler_ref);
	TEXT(text);
#undef TEXT
	return delivery;
}

const sluice_delivery_view *sluice_delivery_get(const sluice_delivery *delivery)
{
	return &delivery->view;
}

void sluice_delivery_free(sluice_delivery *delivery)
{
	if (delivery == NULL)
		return;
	mem_free(delivery->bytes);
	mem_free(delivery);
}
