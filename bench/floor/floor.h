/* SPDX-License-Identifier: Apache-2.0
 *
 * sluice-floor: the cost of bare LMDB, without any part of Sluice on top.
 *
 * Shared by the harness (main.c, options.c, report.c, store.c, util.c) and the families of
 * scenarios (commit.c, publish.c, queue.c, ledger.c, values.c); sluice-floor-server uses its
 * store.c and util.c. It includes nothing of the broker on purpose: the floor must stay the same
 * when the broker changes.
 *
 * One thread. Every call blocks. A failure of the environment ends the program: floor_die() prints
 * the failure, has the scratch directory removed and exits with 1, so no function here returns an
 * error code.
 */
#ifndef SLUICE_BENCH_FLOOR_H
#define SLUICE_BENCH_FLOOR_H

#include <lmdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	FLOOR_METRICS_MAX = 4,
	FLOOR_REPEATS_MAX = 25,
	FLOOR_ROWS_MAX = 256,
	FLOOR_ONLY_MAX = 16,
	FLOOR_BATCH = 1000, /* operations per transaction, unless a scenario sets another number */
	FLOOR_PATH_MAX = 1024,
};

#define FLOOR_MAP_BYTES ((size_t)16 << 30)

struct floor_options {
	bool quick;
	bool list;
	bool help;
	bool sync; /* false: MDB_NOSYNC, to separate the processor's share from the disk's */
	unsigned repeats;
	unsigned slice_ms;     /* length of one timed repeat */
	uint64_t backlog;      /* waiting items in the queue scenarios with a backlog */
	uint64_t records;      /* rows of the large ledger and name tables */
	uint64_t turnover;     /* how many times `values` scenarios replace all live items */
	uint64_t age_rounds;   /* transactions of churn that age a store */
	const char *dir;       /* parent of the scratch directory; borrowed from argv */
	const char *json_path; /* borrowed from argv, or NULL */
	const char *only[FLOOR_ONLY_MAX];
	unsigned only_count;
};

/* State of an aged store after the churn; all zero for a fresh one. */
struct floor_age {
	uint64_t file_bytes;
	uint64_t live_bytes; /* pages in use by live records */
	uint64_t free_pages;
	uint64_t free_runs; /* number of contiguous runs of free pages */
};

struct floor_store {
	MDB_env *env; /* NULL while closed */
	char path[FLOOR_PATH_MAX];
	bool sync;
	struct floor_age age;
};

struct floor_scenario;

/* One scenario on one store. `state` belongs to the scenario: made by setup, freed by fini. */
struct floor_run {
	const struct floor_options *opt;
	const struct floor_scenario *scenario;
	struct floor_store *store;
	uint64_t rng;
	uint64_t slice_ns; /* duration of a step; shorter for the warm-up */
	void *state;
};

struct floor_scenario {
	const char *name;
	const char *what; /* one line for --list */
	/* of the values that step sets, NULL after the last */
	const char *units[FLOOR_METRICS_MAX];
	bool store_each; /* every repeat begins on its own store, without a warm-up */
	const void *arg; /* the family's own parameters */
	void (*setup)(struct floor_run *run);
	void (*step)(struct floor_run *run, double *values); /* one timed repeat */
	void (*fini)(struct floor_run *run);
};

/* A table of scenarios; each family's file exports one. */
struct floor_family {
	const char *name;
	const struct floor_scenario *scenarios;
	size_t count;
};

extern const struct floor_family floor_family_commit;
extern const struct floor_family floor_family_publish;
extern const struct floor_family floor_family_queue;
extern const struct floor_family floor_family_ledger;
extern const struct floor_family floor_family_values;

/* The result of one metric of one scenario on one store. */
struct floor_row {
	const char *scenario;
	const char *store;
	const char *unit;
	unsigned count;
	double values[FLOOR_REPEATS_MAX]; /* in the order they were measured */
	double probe_us;		  /* a minimal commit at that time: the state of the disk */
};

struct floor_report {
	size_t count;
	struct floor_row rows[FLOOR_ROWS_MAX];
};

/* util.c */

/* Called by floor_die() before the program exits; main.c removes its scratch directory there. */
void floor_at_death(void (*fn)(void));

/* Print the message to stderr after the program's name, clean up (above), exit with 1. */
_Noreturn void floor_die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Die unless rc, a result of LMDB, is 0. `what` names the call. */
void floor_must(int rc, const char *what);

/* calloc() that never returns NULL. The caller frees the memory. */
void *floor_alloc(size_t count, size_t size);

/* Monotonic clock, ns. */
uint64_t floor_now_ns(void);

/* The next number of a splitmix64 sequence; *rng is its state, any value. */
uint64_t floor_random(uint64_t *rng);

/* Write v big-endian at p, so that keys sort by number. */
void floor_be32(uint8_t *p, uint32_t v);
void floor_be64(uint8_t *p, uint64_t v);
uint64_t floor_get_be64(const uint8_t *p);

/* Fill n bytes that are incompressible and do not repeat. */
void floor_fill(uint8_t *p, size_t n, uint64_t seed);

/* options.c */

/* Parse argv into *ret. Return 0, or 2 after an explanation on stderr. */
int floor_options_parse(struct floor_options *ret, int argc, char **argv);
void floor_options_usage(void);

/* report.c */

/* Add a row; its strings are borrowed and must outlive the report. */
void floor_report_add(struct floor_report *report, const struct floor_row *row);

/* The median of count values, 1 to FLOOR_REPEATS_MAX. */
double floor_median(const double *values, unsigned count);

/* The table as text, on stdout. */
void floor_report_print(const struct floor_report *report);

/* Write JSON to path; dies if that fails. */
void floor_report_json(const struct floor_report *report, const struct floor_options *opt,
		       const struct floor_age *age, const char *path);

/* store.c */

/* Open an empty store at path, replacing an existing one. */
void floor_store_create(struct floor_store *store, const char *path, bool sync);

/* Copy the closed store `from` to path, on the disk before return, and open the copy. */
void floor_store_clone(struct floor_store *store, const struct floor_store *from, const char *path);

/* Close; keeps the file. Safe when it is closed already. */
void floor_store_close(struct floor_store *store);

/* Age an open, empty store with random-key churn and long-lived items among short-lived ones; fills
 * store->age. Not timed, and without sync until its end. */
void floor_store_age(struct floor_store *store, uint64_t rounds);

/* Cost of a commit of one small put at this time on a small store of its own, in us. */
double floor_store_probe(struct floor_store *store);

/* Bytes that LMDB has allocated in the file so far; it never shrinks. */
uint64_t floor_store_file_bytes(const struct floor_store *store);

/* Sync off for a preload, on again (with a sync) after it. */
void floor_store_preload(struct floor_store *store, bool on);

/* Open a named table within the transaction, making it if needed. */
MDB_dbi floor_table(MDB_txn *txn, const char *name);
MDB_txn *floor_begin(const struct floor_store *store);
void floor_commit(MDB_txn *txn);
MDB_cursor *floor_cursor(MDB_txn *txn, MDB_dbi dbi);
void floor_put(MDB_txn *txn, MDB_dbi dbi, const void *key, size_t key_len, const void *val,
	       size_t val_len);
void floor_cursor_put(MDB_cursor *cursor, const void *key, size_t key_len, const void *val,
		      size_t val_len);

/* Move to key, which must exist. The value points into the map and is invalidated by the next
 * write. */
MDB_val floor_cursor_set(MDB_cursor *cursor, const void *key, size_t key_len);

/* Delete key, which must exist. */
void floor_cursor_del_key(MDB_cursor *cursor, const void *key, size_t key_len);

#endif
