/* SPDX-License-Identifier: Apache-2.0
 * What is under way, by the version of the rules that admitted it. */
#include "broker/net/conn/under_way.h"

#include "broker/net/conn/internal.h"
#include "broker/util/invariant.h"

uint64_t under_way_add(struct io *io)
{
	io->under_way++;
	return io->security;
}

void under_way_done(struct io *io, uint64_t version)
{
	const bool is_older = version < io->security;

	invariant(io->under_way > 0 && (!is_older || io->older > 0),
		  "%llu under way, %llu older than version %llu; one of version %llu ends",
		  ULL(io->under_way), ULL(io->older), ULL(io->security), ULL(version));
	io->under_way--;
	io->older -= is_older;
}
