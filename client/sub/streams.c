/* SPDX-License-Identifier: Apache-2.0
 * The numbers of the streams that this client follows, by name: a cursor is set in the stream that
 * was read, which may be deleted while another has its name. */
#include <string.h>

#include "client/sub/streams.h"
#include "client/sub/sub.h"

uint64_t subs_stream_id(const sluice_client *client, const char *name)
{
	uint64_t id = 0;

	for (const sluice_sub *sub = client->subs->all; sub != NULL; sub = sub->hh.next) {
		if (!sub->follow || sub->thing == 0 || strcmp(sub->name, name) != 0)
			continue;
		if (id != 0 && id != sub->thing)
			return 0;
		id = sub->thing;
	}
	return id;
}
