/* SPDX-License-Identifier: Apache-2.0
 * The table of plants. For plants.c and plants_engine.c. */
#ifndef SLUICE_TESTS_SIM_PLANTS_INTERNAL_H
#define SLUICE_TESTS_SIM_PLANTS_INTERNAL_H

#include "tests/sim/plants.h"

/* X(NAME, "name", "what it does") */
#define PLANTS(X)                                                                                  \
	X(NONE, "none", "the broker without a plant")                                              \
	X(LOST_ACK, "lost-ack", "every eighth ack is answered and not applied")                    \
	X(OPEN_FENCE, "open-fence",                                                                \
	  "an ack with an old token settles an item that another session holds")                   \
	X(NO_ATTEMPT, "no-attempt", "a failed attempt is not counted")                             \
	X(DUP_GRANT, "dup-grant", "a returned item stays ready when it is granted")                \
	X(LOST_NACK, "lost-nack", "every eighth returned item is not made ready")                  \
	X(LOST_WAKE, "lost-wake", "a returned item causes no claim")                               \
	X(NO_EXPIRY, "no-expiry", "leases do not end")                                             \
	X(EARLY_EXPIRY, "early-expiry", "leases end after half their time")                        \
	X(SHORT_BOOT, "short-boot", "leases are not extended at a start of the broker")            \
	X(HIDDEN_START, "hidden-start", "a start writes more than its commands say")               \
	X(LOST_RENEW, "lost-renew", "a renewal is answered and not applied")                       \
	X(SHARED_RENEW, "shared-renew", "a renewed item stays held under its old token, too")      \
	X(SHORT_RENEW, "short-renew", "a renewal gives half the lease that was asked for")         \
	X(UNBEGUN_RENEW, "unbegun-renew", "a renewed item is no longer begun")                     \
	X(SOFT_REJECT, "soft-reject", "a rejected item is returned as by a nack")                  \
	X(LOST_REJECT, "lost-reject", "every eighth rejected item is acked")                       \
	X(LOST_DEAD, "lost-dead", "dead letters are put into no queue")                            \
	X(IMMORTAL_LEASE, "immortal-lease", "items stay with a session that has ended")            \
	X(DOUBLE_PUBLISH, "double-publish", "the retry of a publish is stored again")              \
	X(OPEN_EPOCH, "open-epoch", "a publish with an old epoch is accepted")                     \
	X(LOST_EVENT, "lost-event", "every eighth change of a job leaves no event")                \
	X(FALSE_PURGE, "false-purge", "a purge is answered and not applied")                       \
	X(OLD_LEASE, "old-lease", "a redelivery does not restart the lease")                       \
	X(RETENTION, "retention", "a bounded stream keeps one event too few")                      \
	X(CURSOR_BACK, "cursor-back", "a cursor moves back without a request")                     \
	X(TORN_TXN, "torn-txn", "a refused transaction keeps its first operations")                \
	X(LOST_COMMIT, "lost-commit", "a kill loses the last commit")                              \
	X(FAILED_COMMIT, "failed-commit", "a failed commit is answered as a successful one")       \
	X(LOST_INTENT, "lost-intent", "an intent is answered and not recorded")                    \
	X(STALE_REPORT, "stale-report", "a report of an old attempt counts as one of the current") \
	X(OLD_TOKEN, "old-token", "a takeover gets the token of the lease before")                 \
	X(NO_FORGETTING, "no-forgetting", "finished jobs are never deleted")                       \
	X(DEAD_HOLDER, "dead-holder", "a job stays with a session that has ended")                 \
	X(SHARED_EMPTY, "shared-empty",                                                            \
	  "an idle consumer keeps orphans from consumers that accept them")                        \
	X(LOST_ANNOUNCE, "lost-announce", "the announcement of a batch's last claim is ignored")   \
	X(LOST_RESUME, "lost-resume", "a consumer that is resumed is not listed again")            \
	X(LOST_CANCEL, "lost-cancel", "a job's holder is not notified of its cancel")              \
	X(LATE_TIMER, "late-timer", "a due timer fires only with another command")                 \
	X(STRANGERS_ORPHAN, "strangers-orphan", "an orphan goes to a consumer of another source")  \
	X(IDLE_SOURCE, "idle-source", "an orphan of a source causes no claim")                     \
	X(OPEN_SOURCE, "open-source", "a source is taken over without a request")                  \
	X(LOST_ORPHAN, "lost-orphan", "a source does not count the orphans that wait for it")      \
	X(STUCK_DAMAGE, "stuck-damage", "a claim does not skip a damaged job")                     \
	X(BLIND_AUDIT, "blind-audit", "the audit reports nothing")                                 \
	X(LOST_GRANT, "lost-grant", "a lease whose entry is damaged stays with its ended session") \
	X(LOCAL_DAMAGE, "local-damage", "records are damaged in the broker's store only")          \
	X(UNCOUNTED_DAMAGE, "uncounted-damage", "the same, and the store counts no damage")        \
	X(MOVED_APPLIED, "moved-applied",                                                          \
	  "a command of a connection that lost its session is applied")                            \
	X(MOVED_CLOSES, "moved-closes", "a connection closes a session that it has lost")          \
	X(MOVED_FORGOTTEN, "moved-forgotten",                                                      \
	  "waiting commands of a connection that lost its session are applied when it closes")     \
	X(MOVED_UNSEEN, "moved-unseen",                                                            \
	  "commands of a connection that lost its session within one batch are applied")           \
	X(MOVED_CONSUMES, "moved-consumes",                                                        \
	  "items are granted to a connection that lost its session")                               \
	X(ATTACHED_ENDS, "attached-ends", "a session expires while it has a connection")           \
	X(EPHEMERAL_STAYS, "ephemeral-stays", "an ephemeral session survives a start")             \
	X(EPHEMERAL_LATE, "ephemeral-late", "ephemeral sessions end after a start served clients") \
	X(LOST_TOUCH, "lost-touch", "a sign of life is dropped")                                   \
	X(LONG_TOUCH, "long-touch",                                                                \
	  "a session lives longer than its timeout after a sign of life")                          \
	X(STANDING_ENDS, "standing-ends", "a standing session expires")                            \
	X(STOPPED_COUNTS, "stopped-counts",                                                        \
	  "sessions expire by time in which the process did not run")                              \
	X(LATE_REFUSAL, "late-refusal", "refusals before core are answered at the end of a batch") \
	X(LATE_FLUSH, "late-flush", "answers of reads are given when a round ends")                \
	X(LATE_NUMBER, "late-number", "a read counts a commit that began after its snapshot")      \
	X(EARLY_EVENT, "early-event",                                                              \
	  "a follower is given events before the answers of their commit")                         \
	X(EARLY_NUMBER, "early-number",                                                            \
	  "a read has the number of before, two commits came between it and its snapshot")         \
	X(WHOLE_CONTROL, "whole-control", "control fills a commit although data waits")            \
	X(STOPPED_DATA, "stopped-data", "data waits until no control does")                        \
	X(DATA_AHEAD, "data-ahead", "a commit executes data before control")                       \
	X(TURNED_LANE, "turned-lane", "two commands of a lane change their places")                \
	X(OPEN_END, "open-end", "a consumer that was told its end still claims")                   \
	X(LOST_END, "lost-end", "every eighth consumer is not told its end")                       \
	X(DOUBLE_END, "double-end", "every eighth consumer is told its end twice")
enum plant {
#define PLANT_ENUM(NAME, name, text) NAME,
	PLANTS(PLANT_ENUM)
#undef PLANT_ENUM
		PLANT_COUNT
};

extern enum plant planted; /* plants.c */

#endif
