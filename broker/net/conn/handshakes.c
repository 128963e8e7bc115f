/* SPDX-License-Identifier: Apache-2.0
 * See handshakes.h. */
#include "broker/net/conn/handshakes.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <utlist.h>

#include "broker/net/conn/internal.h"
#include "protocol/limits.h"

/* Of IPv6 the first 64 bits: one peer has all the addresses below them. */
struct handshake_address {
	uint64_t key;
	uint32_t count;
	struct handshake *list;
	struct handshake *turns; /* of those that wait, the longest first */
	struct handshake_address *turn_prev, *turn_next;
	UT_hash_handle hh;
};

static uint64_t key_of(int fd)
{
	struct sockaddr_storage addr = {0};
	const struct in6_addr *v6 = &((const struct sockaddr_in6 *)&addr)->sin6_addr;
	socklen_t len = sizeof(addr);
	uint64_t key = 0;

	if (getpeername(fd, (struct sockaddr *)&addr, &len) != 0)
		return 0;
	if (addr.ss_family == AF_INET)
		return ((const struct sockaddr_in *)&addr)->sin_addr.s_addr;
	if (addr.ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(v6))
		memcpy(&key, &v6->s6_addr[12], 4);
	else if (addr.ss_family == AF_INET6)
		memcpy(&key, v6->s6_addr, sizeof(key));
	return key;
}

int handshake_begin(struct io *io, struct handshake *handshake, int fd)
{
	uint64_t key = key_of(fd);
	struct handshake_address *address;

	HASH_FIND(hh, io->handshakes, &key, sizeof(key), address);
	if (address == NULL) {
		address = calloc(1, sizeof(*address));
		if (address == NULL)
			return SLUICE_E_NOMEM;
		address->key = key;
		HASH_ADD(hh, io->handshakes, key, sizeof(address->key), address);
		if (!HASHED(hh, address)) {
			free(address);
			return SLUICE_E_NOMEM;
		}
	}
	handshake->address = address;
	handshake->number = ++io->handshake_number;
	DL_APPEND(address->list, handshake);
	address->count++;
	io->handshake_count++;
	return 0;
}

void handshake_wait(struct io *io, struct handshake *handshake)
{
	struct handshake_address *address = handshake->address;

	if (address == NULL || handshake->waits)
		return;
	if (address->turns == NULL)
		DL_APPEND2(io->handshake_turns, address, turn_prev, turn_next);
	handshake->waits = true;
	DL_APPEND2(address->turns, handshake, turn_prev, turn_next);
}

static void wait_end(struct io *io, struct handshake *handshake)
{
	struct handshake_address *address = handshake->address;

	if (!handshake->waits)
		return;
	handshake->waits = false;
	DL_DELETE2(address->turns, handshake, turn_prev, turn_next);
	if (address->turns == NULL)
		DL_DELETE2(io->handshake_turns, address, turn_prev, turn_next);
}

struct handshake *handshake_turn(struct io *io)
{
	struct handshake_address *address = io->handshake_turns;
	struct handshake *handshake;

	if (address == NULL)
		return NULL;
	handshake = address->turns;
	wait_end(io, handshake);
	if (address->turns == NULL)
		return handshake;
	DL_DELETE2(io->handshake_turns, address, turn_prev, turn_next);
	DL_APPEND2(io->handshake_turns, address, turn_prev, turn_next);
	return handshake;
}

void handshake_end(struct io *io, struct handshake *handshake)
{
	struct handshake_address *address = handshake->address;

	if (address == NULL)
		return;
	wait_end(io, handshake);
	handshake->address = NULL;
	DL_DELETE(address->list, handshake);
	io->handshake_count--;
	if (--address->count > 0)
		return;
	HASH_DELETE(hh, io->handshakes, address);
	free(address);
}

struct handshake *handshake_excess(const struct io *io)
{
	const uint32_t share = (uint32_t)LIMIT_HANDSHAKES_MAX / io->net->io_count;
	struct handshake_address *address, *next, *most = NULL;

	if (io->handshake_count <= share)
		return NULL;
	HASH_ITER(hh, io->handshakes, address, next) {
		if (most == NULL || address->count > most->count ||
		    (address->count == most->count && address->list->number < most->list->number))
			most = address;
	}
	return most->list;
}
