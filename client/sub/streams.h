/* SPDX-License-Identifier: Apache-2.0
 * The streams that a client follows. Transactions include this header, and no other of sub/. */
#ifndef SLUICE_CLIENT_SUB_STREAMS_H
#define SLUICE_CLIENT_SUB_STREAMS_H

#include "client/base/client.h"

/* Number of the stream that this client follows under the name; 0: none, or several. */
uint64_t subs_stream_id(const sluice_client *client, const char *name);

#endif
