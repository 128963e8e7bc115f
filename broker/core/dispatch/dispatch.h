/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by the files of dispatch, which call the nouns. The tables, one row per kind, are in
 * broker/core: commands.def (commands), timers.def (timers), sweeps.def (sweeps), queries.def
 * (reads), owned.def (the ends of entries that sessions own).
 */
#ifndef SLUICE_CORE_DISPATCH_DISPATCH_H
#define SLUICE_CORE_DISPATCH_DISPATCH_H

#include "broker/core/session/session.h"

/* gateway.c: installs the objects of a new gateway. a->gateway is its number. */
int gateway_install(struct apply *a, struct sluice_slice name) SLUICE_MUST_USE;

/* session_end.c: rows by enum owned_kind; entries that an ended session still owns. */
extern const struct owned_ops session_owned_ops[];
int session_sweep(struct apply *a, uint64_t session, uint32_t *io_work,
		  bool *ret_done) SLUICE_MUST_USE;

/* sweep.c: TIMER_SWEEP. */
int sweep_fire(struct apply *a, uint64_t id, uint64_t kind, uint32_t *io_work);

int status_query(struct query *q,
		 const Sluice__Request *request); /* status_get: counts; the engine adds the rest */

#endif
