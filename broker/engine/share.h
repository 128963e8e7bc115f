/* SPDX-License-Identifier: Apache-2.0
 * Selects the sessions whose commands a batch takes when more are pending than one commit can hold.
 * For share.c, engine.c, batch.c and struct engine. */
#ifndef SLUICE_ENGINE_SHARE_H
#define SLUICE_ENGINE_SHARE_H

#include "broker/engine/demand.h"
#include "broker/engine/inbox.h"

/* Work is counted in records: a microsecond or two each with their part of the sync. Bytes take two
 * milliseconds per MiB. */
enum { BYTES_PER_RECORD = 512 };

/* A session that had more than its share lately, or that has pending commands. */
struct share {
	struct session_key key;
	struct lane control, data; /* its pending commands */
	size_t waiting, data_waiting;
	int64_t ahead;	/* estimated work of control that went before its data that waits */
	int64_t left;	/* of its share of the round; below 0: it has used shares of later rounds */
	uint64_t round; /* the round that `left` is of */
	int64_t guess;	/* estimated work of its next command, from its last ones; 0: none */
	int64_t peak;	/* the largest of its last commands, fading */
	uint64_t seen;	/* batch of its last charge */
	enum share_place { SHARE_IDLE, SHARE_SOON, SHARE_LATER, SHARE_APART } place;
	struct share *prev, *next; /* in the list of its place */
	UT_hash_handle hh;
};
struct shares {
	struct share *all; /* uthash, without `rest` */
	/* utlists. Idle: nothing is pending; ordered by last use. Soon: small commands are pending,
	 * and its share is not used up. Later, in turn: all others. */
	struct share *lists[SHARE_APART];
	/* for all sessions without memory of their own; always in later: a round ends there */
	struct share rest;
	size_t waiting; /* commands of all sessions */
	size_t waiting_later;
	size_t data_waiting, data_later; /* of these, in the lane of data */
	uint64_t round;
	uint64_t batches;
	bool sorted; /* the current batch was taken by shares, not in order of arrival */
	bool large;  /* it has large commands, by estimate, or took long */
};

void shares_init(struct shares *shares);
/* Before a batch is taken: reduces the pending commands in the lanes to those of the batch; the
 * shares keep the others. Changes nothing while no session had more than a share. */
void shares_choose(struct shares *shares, struct taken *taken, uint64_t bytes_max);
/* After a command: whether the commit has done enough work, and the next batch takes the others. */
bool shares_enough(const struct shares *shares, uint64_t work);
/* After a commit with this work: charges the sessions of its commands. */
void shares_charge(struct shares *shares, struct submission *const *done, size_t count,
		   uint64_t work);
/* Returns a command that was taken and not applied to the front of its session. To be called in
 * reverse order. */
void shares_return(struct shares *shares, struct taken *taken, struct submission *submission);
struct submission *shares_pop(struct shares *shares); /* any; NULL: nothing is pending */
/* Calls each for the lanes of all sessions. */
void shares_each(const struct shares *shares, void (*each)(void *user, const struct lane *lane),
		 void *user);
void shares_fini(struct shares *shares); /* nothing may be pending */

#endif
