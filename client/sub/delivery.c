/* SPDX-License-Identifier: Apache-2.0
 * Deliveries on their way to the application: passed to its callback at once, or copied and kept
 * until sluice_sub_next reads them. */
#include <string.h>
#include <utlist.h>

#include "client/base/memory.h"
#include "client/sub/sub.h"

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

/* A copy that owns all memory of the view; NULL: no memory. */
static sluice_delivery *delivery_copy(const sluice_delivery_view *view)
{
	size_t headers = 0, header_bytes = 0, bytes;
	sluice_delivery *delivery = mem_alloc(sizeof(*delivery));
	uint8_t *at;

	while (view->headers != NULL && view->headers[headers] != NULL)
		header_bytes += strlen(view->headers[headers++]) + 1;
	bytes = (headers + 1) * sizeof(char *) + header_bytes + view->key.len + view->id.len +
		view->body.len + 3 + text_len(view->subject) + text_len(view->job) +
		text_len(view->owner) + text_len(view->state) + text_len(view->tag) +
		text_len(view->scheduler_ref) + text_len(view->text) + text_len(view->source) +
		text_len(view->lifecycle);
	if (delivery == NULL || (delivery->bytes = mem_alloc(bytes)) == NULL) {
		mem_free(delivery);
		return NULL;
	}
	delivery->view = *view;
	at = delivery->bytes + (headers + 1) * sizeof(char *);
	if (view->headers != NULL) {
		const char **list = (const char **)(void *)delivery->bytes;

		for (size_t i = 0; i < headers; i++)
			list[i] = (const char *)place(&at, view->headers[i],
						      strlen(view->headers[i]));
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
	TEXT(source);
	TEXT(lifecycle);
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

static void delivered(sluice_sub *sub, const sluice_delivery_view *view)
{
	if (sub->manual_credit &&
	    (view->kind == SLUICE_DELIVERY_ITEM || view->kind == SLUICE_DELIVERY_JOB) &&
	    sub->credit > 0)
		sub->credit--;
}

bool sub_deliver(sluice_sub *sub, const sluice_delivery_view *view)
{
	sluice_delivery *delivery;

	if (sub->closing)
		return true;
	if (sub->on_delivery != NULL) {
		delivered(sub, view);
		sub->on_delivery(sub, view, sub->user);
		if (view->kind == SLUICE_DELIVERY_EVENT)
			sub_release(sub, 1);
		return true;
	}
	delivery = delivery_copy(view);
	if (delivery == NULL)
		return false;
	delivered(sub, view);
	if (sub->waiting == NULL)
		(void)pthread_cond_broadcast(&sub->client->changed);
	DL_APPEND(sub->waiting, delivery);
	sub->waiting_count++;
	return true;
}

uint32_t undelivered_drop(sluice_sub *sub, sluice_token token, const char *job)
{
	sluice_delivery *delivery, *next;
	uint32_t count = 0;

	DL_FOREACH_SAFE(sub->waiting, delivery, next) {
		const sluice_delivery_view *view = &delivery->view;

		if ((view->kind != SLUICE_DELIVERY_ITEM && view->kind != SLUICE_DELIVERY_JOB) ||
		    (token != 0 && view->token != token) ||
		    (job != NULL && strcmp(view->job, job) != 0))
			continue;
		DL_DELETE(sub->waiting, delivery);
		sub->waiting_count--;
		sluice_delivery_free(delivery);
		count++;
	}
	if (sub->manual_credit)
		sub->credit += count;
	return count;
}
