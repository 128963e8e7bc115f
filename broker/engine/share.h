/* SPDX-License-Identifier: Apache-2.0
 * Whose commands a batch takes when there are more than one commit can hold.
 * For share.c, engine.c, batch.c and struct engine. */
#ifndef SLUICE_ENGINE_SHARE_H
#define SLUICE_ENGINE_SHARE_H

#include "broker/engine/demand.h"
#include "broker/engine/inbox.h"

/* Work is in records: a microsecond or two each with their part of the sync. Bytes take two
 * milliseconds a MiB. */
enum { BYTES_PER_RECORD = 512 };

/* Of a session that had more than its share lately, or of which something waits. */
struct share {
	struct session_key key;
	struct lane control, data; /* what waits of it */
	size_t waiting;
	int64_t left;	/* of its share of the round; below 0: it has had so much of later ones */
	uint64_t round; /* for which that is */
	int64_t guess;	/* work of its next command, by its last ones; 0: none is known */
	int64_t peak;	/* the largest of its last ones, which fades */
	uint64_t seen;	/* it was charged then */
	enum share_place { SHARE_IDLE, SHARE_SOON, SHARE_LATER, SHARE_APART } place;
	struct share *prev, *next; /* in the list of that */
	UT_hash_handle hh;
};
struct shares {
	struct share *all; /* uthash, but `rest` */
	/* utlists. Idle: nothing waits, the one that was busy last behind the others. Soon: small
	 * ones wait, and its share is not used up. Later, in turn: all others. */
	struct share *lists[SHARE_APART];
	struct share
		rest; /* of all for whom there is no memory; always in later: there a round ends */
	size_t waiting; /* commands, of all */
	size_t waiting_later;
	uint64_t round;
	uint64_t batches;
	bool sorted; /* the batch at hand was taken by shares, not as it came */
	bool large;  /* large commands are in it, as far as is known, or it was long */
};

void shares_init(struct shares *shares);
/* Before a batch is taken: what waits in the lanes becomes what the batch takes of it; shares keep
 * the rest. Nothing changes while nobody had more than a share. */
void shares_choose(struct shares *shares, struct taken *taken, uint64_t bytes_max);
/* Of a commit, after a command: it has done so much work that the rest is for the next. */
bool shares_enough(const struct shares *shares, uint64_t work);
/* After a commit that did so much work: the sessions of its commands are charged with theirs. */
void shares_charge(struct shares *shares, struct submission *const *done, size_t count,
		   uint64_t work);
/* One that was taken and not applied is the first of its session again. The last one comes
 * first. */
void shares_return(struct shares *shares, struct taken *taken, struct submission *submission);
struct submission *shares_pop(struct shares *shares); /* any; NULL: nothing waits */
void shares_fini(struct shares *shares);	      /* nothing waits */

#endif
