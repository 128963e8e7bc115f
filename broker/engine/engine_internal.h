/* SPDX-License-Identifier: Apache-2.0
 * struct engine, made of its parts. All fields belong to the engine's thread unless they are atomic
 * or in the inbox. For the files of broker/engine that need more than one part. */
#ifndef SLUICE_ENGINE_INTERNAL_H
#define SLUICE_ENGINE_INTERNAL_H

#include <pthread.h>

#include "broker/engine/batch.h"
#include "broker/engine/run_clock.h"
#include "broker/engine/demand.h"
#include "broker/engine/headroom.h"
#include "broker/engine/heartbeat.h"
#include "broker/engine/inbox.h"
#include "broker/engine/moved.h"
#include "broker/engine/share.h"

struct engine {
	struct engine_config config;
	struct store *store;
	struct core *core;
	struct inbox inbox;
	struct taken taken; /* taken from the inbox, not yet in a batch */
	struct demand demand;
	struct heartbeats heartbeats;
	struct run_clock run_clock; /* has its own lock */
	struct moved moved;
	struct headroom_gate gate;
	struct shares shares;
	struct batch batch;
	struct engine_sink *sinks[SINKS_MAX];
	bool sink_lags[SINKS_MAX];
	size_t sink_count;
	enum engine_role role;
	/* durable mono = process mono + offset; the offset is set when it takes the lead */
	_Atomic int64_t mono_offset_ms;
	uint64_t mono_last_ms;
	uint64_t stopped_ms;	   /* time in which the process did not run, as of this round */
	uint64_t live_ms;	   /* durable mono without that time: sessions expire by it */
	uint64_t next_deadline_ms; /* of core's timers */
	/* no TICK before: the last failed on a damaged record, and its timer is not
	 * known */
	uint64_t tick_hold_ms;
	/* timer that the next TICK puts off; that TICK does nothing else */
	uint8_t put_off[TIMER_KEY_BYTES];
	size_t put_off_bytes;
	_Atomic uint64_t commits, commands, aborted;
	_Atomic uint64_t commits_damaged;
	_Atomic uint64_t consumer_count, attached_count;
	_Atomic int headroom_now;
	pthread_mutex_t headroom_lock; /* of headroom_why */
	/* the gate's, for other threads; empty: there is room */
	char headroom_why[HEADROOM_WHY_BYTES];
	bool failed;
	pthread_t thread;
	bool thread_runs;
	_Atomic bool draining; /* nothing is claimed any more */
	_Atomic bool stopping;
};

#endif
