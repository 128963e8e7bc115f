/* SPDX-License-Identifier: Apache-2.0
 *
 * Deletes attempts that are not needed any more, some at each turn of the loop, so that the spool
 * does not grow for ever.
 *
 * The rule: nothing of the attempt lives, it is not held, it has not changed for keep_ms, and
 * the broker says that its job is at its end or at a later attempt, and that this is the tag of the
 * attempt's intent: in a spool that two brokers share there may be another attempt of its number.
 * If the broker does not know the job or the tag (any more), an attempt is deleted only if this
 * scheduler saw its last report accepted: others may belong to another gateway, and to forget an
 * attempt is to allow it again.
 *
 * A directory that its job moved within the spool is identified by its file `tag`, and deleted by
 * the same rule; but since nothing looks for the attempt there, also when the broker does not know
 * the job or the tag any more. What belongs to no attempt is left alone, and logged once.
 *
 * An attempt that lives although a reset ended it is handed to stale.c, but only if its job's
 * history has its tag: it may be another broker's.
 *
 * A directory leaves its place by one rename before its files are deleted: a shepherd that was
 * stopped that long never finds half of it. A job's working directory may have any size and shape:
 * tree.h deletes it, for DELETE_MS of a turn. Files that cannot be deleted are logged, and tried
 * again with the next pass.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "stale.h"
#include "job_table.h"
#include "sweep.h"
#include "attempt/tree.h"

enum {
	BUCKETS = 256,
	PARTS = BUCKETS + 1, /* and what the spool itself has */
	STEPS_PER_TURN = 64,
	ASKED_MAX = 16,
	PASS_MS_MIN = 1000,
	PASS_MS_MAX = 3600000,
	CLOCK_SLEW_MS = 60000,
	CLOCK_STAND_MS = 900000, /* as the broker has it */
	DELETE_MS = 10,
	DELETE_ENTRIES = 4,   /* between two readings of the clock */
	TREE_MS_MAX = 3600000 /* a process still makes files in it: the next tree has its turn */
};

static const char gone[] = "gone.";

struct question {
	struct service *service;
	uint32_t attempt;
	bool runs;
	bool moved; /* dir is not where the attempt's files are looked for */
	char *job;
	char life[ATTEMPT_LIFE_BYTES];
	char tag[ATTEMPT_TAG_MAX];
	char dir[ATTEMPT_PATH_MAX];
};

/* ---- deleting ---- */

static void tree_end(struct sweep *sweep)
{
	tree_close(sweep->tree);
	sweep->tree = NULL;
}

/* Logged once, not with each pass. */
static void log_once(struct service *service, const char *name, const char *why)
{
	char text[ATTEMPT_PATH_MAX + 2 * ATTEMPT_ERROR_BYTES];

	switch (notes_meet(&service->sweep.notes, name, why, service_now_ms())) {
	case NOTE_KNOWN:
		return;
	case NOTE_NEW:
		(void)snprintf(text, sizeof(text), "%s %s", name, why);
		break;
	case NOTE_FULL:
		(void)snprintf(text, sizeof(text),
			       "more than %d entries stay in the spool; not all are logged",
			       NOTES_MAX);
		break;
	}
	service_log(service, SLUICE_LOG_WARN, "local.sweep", NULL, text);
}

static void log_undeleted(struct service *service, const char *name, const char *why)
{
	char text[2 * ATTEMPT_ERROR_BYTES];

	(void)snprintf(text, sizeof(text), "cannot be deleted from the spool: %s", why);
	log_once(service, name, text);
}

static void attempt_delete(struct service *service, const char *dir)
{
	char path[sizeof(service->settings.spool) + 64];

	(void)snprintf(path, sizeof(path), "%s/%s%d.%" PRIu64, service->settings.spool, gone,
		       (int)getpid(), ++service->sweep.deleted);
	if (rename(dir, path) != 0) {
		log_undeleted(service, dir, strerror(errno));
		return;
	}
	service->sweep.in_pass++;
	service->sweep.none_gone = false;
	service->sweep.gone_again = service->sweep.spool != NULL; /* this listing may not have it */
}

/* The next directory that is to be deleted: also those of a scheduler that died between rename
 * and deletion. */
static void gone_next(struct service *service, uint64_t now_ms)
{
	struct sweep *sweep = &service->sweep;
	const struct dirent *entry;

	if (sweep->spool == NULL)
		sweep->spool = opendir(service->settings.spool);
	entry = sweep->spool != NULL ? readdir(sweep->spool) : NULL;
	if (entry == NULL) {
		if (sweep->spool != NULL)
			(void)closedir(sweep->spool);
		sweep->spool = NULL;
		sweep->none_gone = !sweep->gone_again;
		sweep->gone_again = false;
		return;
	}
	if (strncmp(entry->d_name, gone, strlen(gone)) != 0)
		return;
	(void)snprintf(sweep->tree_name, sizeof(sweep->tree_name), "%s", entry->d_name);
	sweep->tree_ms = now_ms;
	/* A job may have put a link or a file in the place of its attempt's directory. */
	if (tree_open(dirfd(sweep->spool), entry->d_name, &sweep->tree) != 0 &&
	    unlinkat(dirfd(sweep->spool), entry->d_name, 0) != 0)
		log_undeleted(service, entry->d_name, attempt_error());
}

static void gone_turn(struct service *service, uint64_t now_ms)
{
	struct sweep *sweep = &service->sweep;
	int rc;

	for (uint64_t now = now_ms; !sweep->none_gone && now < now_ms + DELETE_MS;
	     now = service_now_ms()) {
		if (sweep->tree == NULL) {
			gone_next(service, now);
			continue;
		}
		rc = tree_step(sweep->tree, DELETE_ENTRIES);
		if (rc < 0)
			log_undeleted(service, sweep->tree_name, attempt_error());
		else if (rc > 0 && now - sweep->tree_ms > TREE_MS_MAX)
			log_undeleted(service, sweep->tree_name,
				      "its files increase while they are deleted");
		else if (rc > 0)
			continue;
		tree_end(sweep);
	}
}

/* ---- asking ---- */

static bool was_reported(const struct question *question)
{
	return attempt_is_reported(question->service->settings.spool, question->dir);
}

/* As attempt_inspect(), also of a directory that was moved. */
static int inspect(const struct service *service, const char *dir, struct attempt_view *ret)
{
	int fd = attempt_open_in(service->settings.spool, dir), rc;

	if (fd < 0)
		return attempt_inspect(dir, ret);
	rc = attempt_inspect_at(fd, dir, ret);
	(void)close(fd);
	return rc;
}

/* It may have come back to life since it was asked for. */
static bool may_be_deleted(const struct question *question)
{
	struct attempt_view view;

	return job_find(question->service, question->job, question->attempt) == NULL &&
	       inspect(question->service, question->dir, &view) == 0 &&
	       view.state != ATTEMPT_RUNNING;
}

static void question_end(struct question *question, bool over)
{
	struct service *service = question->service;

	service->sweep.asked--;
	if (over && question->runs) {
		stale_adopt(service, question->job, question->attempt, question->life);
	} else if (over && may_be_deleted(question)) {
		attempt_delete(service, question->dir);
	}
	free(question->job);
	free(question);
}

static void on_history(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct question *question = user;
	bool known = !question->runs && was_reported(question);
	sluice_job_history_row row = SLUICE_JOB_HISTORY_ROW();

	(void)client;
	for (size_t i = 0;
	     !known && sluice_reply_code(reply) == 0 && sluice_reply_history(reply, i, &row); i++)
		known = row.attempt == question->attempt && strcmp(row.event, "intent") == 0 &&
			strcmp(row.evidence, question->tag) == 0;
	question_end(question, known);
}

static void on_shown(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct question *question = user;
	sluice_call call = SLUICE_CALL(.deadline_ms = -1, .done = on_history, .user = question);
	sluice_job_info info = SLUICE_JOB_INFO();

	if (sluice_reply_code(reply) == SLUICE_E_NOT_FOUND) {
		question_end(question,
			     question->moved || (!question->runs && was_reported(question)));
		return;
	}
	if (sluice_reply_code(reply) == 0 && sluice_reply_job(reply, 0, &info)) {
		if (question->moved) {
			question_end(question, info.terminal || info.attempt != question->attempt ||
						       strcmp(info.tag, question->tag) != 0);
			return;
		}
		if (info.attempt == question->attempt && info.terminal && !question->runs) {
			question_end(question, strcmp(info.tag, question->tag) == 0 ||
						       was_reported(question));
			return;
		}
		if (info.attempt > question->attempt &&
		    sluice_job_history(client, question->job, &call, NULL) == 0)
			return;
	}
	question_end(question, false);
}

enum ask { ASK_RUNS, ASK_OLD, ASK_MOVED };

static void ask(struct service *service, const char *dir, const char *job, uint32_t attempt,
		const char *life, enum ask what)
{
	struct question *question = calloc(1, sizeof(*question));
	sluice_call call = SLUICE_CALL(.deadline_ms = -1, .done = on_shown, .user = question);

	if (question == NULL || (question->job = strdup(job)) == NULL) {
		free(question);
		return;
	}
	question->service = service;
	question->attempt = attempt;
	question->runs = what == ASK_RUNS;
	question->moved = what == ASK_MOVED;
	(void)snprintf(question->life, sizeof(question->life), "%s", life);
	(void)snprintf(question->dir, sizeof(question->dir), "%s", dir);
	attempt_tag(job, attempt, life, question->tag);
	service->sweep.asked++;
	if (sluice_job_show(service->client, job, false, &call, NULL) != 0) {
		service->sweep.asked--;
		free(question->job);
		free(question);
	}
}

/* ---- walking ---- */

static int64_t clock_ms(clockid_t id)
{
	struct timespec now;

	(void)clock_gettime(id, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Ages are measured by the wall clock, as the times of files are. One that is set while this
 * runs is believed when it has stood for CLOCK_STAND_MS: a wrong date for a moment is no reason
 * to delete. */
static void clock_turn(struct sweep *sweep)
{
	const int64_t boot_ms = clock_ms(CLOCK_BOOTTIME),
		      apart_ms = clock_ms(CLOCK_REALTIME) - boot_ms;

	if (sweep->clock_apart_ms == 0 || llabs(apart_ms - sweep->clock_apart_ms) < CLOCK_SLEW_MS) {
		sweep->clock_apart_ms = apart_ms;
		sweep->clock_claim_since_ms = 0;
	} else if (sweep->clock_claim_since_ms == 0 ||
		   llabs(apart_ms - sweep->clock_claim_ms) >= CLOCK_SLEW_MS) {
		sweep->clock_claim_ms = apart_ms;
		sweep->clock_claim_since_ms = boot_ms;
	} else if (boot_ms - sweep->clock_claim_since_ms >= CLOCK_STAND_MS) {
		sweep->clock_apart_ms = apart_ms;
	}
}

static bool is_old(const struct service *service, const char *dir)
{
	int64_t believed_ms = clock_ms(CLOCK_BOOTTIME) + service->sweep.clock_apart_ms;
	int64_t now_ms = clock_ms(CLOCK_REALTIME), age_ms;
	struct stat info;

	if (lstat(dir, &info) != 0)
		return false;
	/* By the slower of both: files that were made since have the time of the new one. */
	age_ms = (now_ms < believed_ms ? now_ms : believed_ms) -
		 (int64_t)info.st_mtim.tv_sec * 1000 - info.st_mtim.tv_nsec / 1000000;
	return age_ms >= 0 && (uint64_t)age_ms >= service->settings.keep_ms;
}

/* A directory that says that it is another one's than its place. False: it does not. */
static bool check_moved(struct service *service, const char *dir)
{
	int fd = attempt_open_in(service->settings.spool, dir), rc = SLUICE_E_NOT_FOUND;
	char job[ATTEMPT_JOB_MAX + 1], life[ATTEMPT_LIFE_BYTES], place[ATTEMPT_PATH_MAX];
	struct attempt_view view;
	uint32_t attempt;

	if (fd >= 0) {
		rc = attempt_read_tag(fd, service->spool_id, job, &attempt, life);
		if (rc == 0 && attempt_inspect_at(fd, dir, &view) != 0)
			view.state = ATTEMPT_RUNNING;
		(void)close(fd);
	}
	if (rc != 0 ||
	    (attempt_dir(service->settings.spool, job, attempt, life, false, place) == 0 &&
	     strcmp(place, dir) == 0))
		return false;
	if (view.state != ATTEMPT_RUNNING && job_find(service, job, attempt) == NULL &&
	    is_old(service, dir))
		ask(service, dir, job, attempt, life, ASK_MOVED);
	return true;
}

static void check_other(struct service *service, const char *path)
{
	const char *name = path + strlen(service->settings.spool) + 1;
	struct stat about;

	/* File systems have hidden files of their own. */
	if (lstat(path, &about) == 0 && !check_moved(service, path) && strrchr(path, '/')[1] != '.')
		log_once(service, name,
			 "is in the spool and belongs to no attempt: it is not touched; "
			 "delete it or move it elsewhere");
}

static void check_attempt(struct service *service, const char *dir, const char *job,
			  const char *name)
{
	struct attempt_view view;
	char *end = NULL;
	unsigned long attempt = strtoul(name, &end, 10);

	if (attempt == 0 || attempt > UINT32_MAX || *end != '.' ||
	    strlen(end + 1) != ATTEMPT_LIFE_BYTES - 1 ||
	    strspn(end + 1, "0123456789abcdef") != ATTEMPT_LIFE_BYTES - 1) {
		check_other(service, dir);
		return;
	}
	if (attempt_inspect(dir, &view) != 0)
		return;
	/* Held or not: its session, and with it the notice of its lost lease, may have ended. */
	if (view.state == ATTEMPT_RUNNING) {
		ask(service, dir, job, (uint32_t)attempt, end + 1, ASK_RUNS);
		return;
	}
	/* An empty one is of a claim that came to no intent; who is about to start something in it
	 * makes it again. */
	if (job_find(service, job, (uint32_t)attempt) == NULL && is_old(service, dir) &&
	    rmdir(dir) != 0 && !check_moved(service, dir))
		ask(service, dir, job, (uint32_t)attempt, end + 1, ASK_OLD);
}

/* Not through a link, which a job may have put there. NULL: there is none. */
static DIR *dir_open(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

	if (dir == NULL && fd >= 0)
		(void)close(fd);
	return dir;
}

static bool is_self(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static void check_job(struct service *service, char *path, size_t path_len, char *job,
		      size_t job_len);

/* Each attempt of the job, or further parts of its id. path and job are extended in place. */
static void scan_job(struct service *service, DIR *dir, char *path, size_t path_len, char *job,
		     size_t job_len)
{
	bool more = path[path_len - 1] == '~';
	const struct dirent *entry;

	while ((entry = readdir(dir)) != NULL) {
		size_t name_len = strlen(entry->d_name), len;

		if (is_self(entry->d_name) || path_len + 1 + name_len >= ATTEMPT_PATH_MAX)
			continue;
		path[path_len] = '/';
		memcpy(path + path_len + 1, entry->d_name, name_len + 1);
		if (!more)
			check_attempt(service, path, job, entry->d_name);
		else if (attempt_job_part(entry->d_name, job, job_len, &len) == 0)
			check_job(service, path, path_len + 1 + name_len, job, len);
		else
			check_other(service, path);
		path[path_len] = job[job_len] = 0;
	}
}

/* One directory of a job, or of a part of its id; or an attempt's that was moved to such a name. */
static void check_job(struct service *service, char *path, size_t path_len, char *job,
		      size_t job_len)
{
	DIR *dir = dir_open(path);

	if (dir == NULL) {
		check_other(service, path);
		return;
	}
	if (faccessat(dirfd(dir), "tag", F_OK, AT_SYMLINK_NOFOLLOW) != 0 ||
	    !check_moved(service, path))
		scan_job(service, dir, path, path_len, job, job_len);
	(void)closedir(dir);
	(void)rmdir(path); /* when nothing is left in it */
}

/* What the spool has beside the buckets. */
static void check_top(struct service *service, const char *path, const char *name)
{
	static const char *const own[] = {"id", "paused", "lost+found"};

	if ((strlen(name) == 2 && strspn(name, "0123456789abcdef") == 2) ||
	    strncmp(name, gone, strlen(gone)) == 0 || strncmp(name, "id.", 3) == 0)
		return;
	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		if (strcmp(name, own[i]) == 0)
			return;
	check_other(service, path);
}

/* The next entry of the bucket, or of the spool itself, that is being read. */
static void bucket_step(struct service *service)
{
	struct sweep *sweep = &service->sweep;
	const struct dirent *entry = readdir(sweep->bucket);
	char path[ATTEMPT_PATH_MAX], bucket[8] = "", job[ATTEMPT_JOB_MAX + 1];
	size_t job_len;
	int len;

	if (entry == NULL) {
		(void)closedir(sweep->bucket);
		sweep->bucket = NULL;
		sweep->next++;
		return;
	}
	if (sweep->next < BUCKETS)
		(void)snprintf(bucket, sizeof(bucket), "%02x/", sweep->next);
	len = snprintf(path, sizeof(path), "%s/%s%s", service->settings.spool, bucket,
		       entry->d_name);
	if (is_self(entry->d_name) || len < 0 || (size_t)len >= sizeof(path))
		return;
	if (sweep->next == BUCKETS)
		check_top(service, path, entry->d_name);
	else if (attempt_job_part(entry->d_name, job, 0, &job_len) == 0)
		check_job(service, path, (size_t)len, job, job_len);
	else
		check_other(service, path);
}

static void bucket_open(struct service *service)
{
	struct sweep *sweep = &service->sweep;
	char path[sizeof(service->settings.spool) + 16];

	(void)snprintf(path, sizeof(path), "%s/%02x", service->settings.spool, sweep->next);
	sweep->bucket = sweep->next < BUCKETS ? dir_open(path) : opendir(service->settings.spool);
	if (sweep->bucket == NULL)
		sweep->next++;
}

static void pass_end(struct service *service, uint64_t now_ms)
{
	struct sweep *sweep = &service->sweep;
	uint64_t pause_ms = service->settings.keep_ms / 10;
	char text[64];

	pause_ms = pause_ms < PASS_MS_MIN   ? PASS_MS_MIN
		   : pause_ms > PASS_MS_MAX ? PASS_MS_MAX
					    : pause_ms;
	sweep->due_ms = now_ms + pause_ms;
	sweep->next = 0;
	(void)snprintf(text, sizeof(text), "%" PRIu64 " old attempts were deleted", sweep->in_pass);
	if (sweep->in_pass > 0)
		service_log(service, SLUICE_LOG_INFO, "local.swept", NULL, text);
	sweep->in_pass = 0;
	notes_pass_end(&sweep->notes);
	sweep->none_gone = false; /* what could not be deleted is tried again */
}

void sweep_turn(struct service *service, uint64_t now_ms)
{
	struct sweep *sweep = &service->sweep;

	clock_turn(sweep);
	if (sweep->due_ms > now_ms)
		return;
	for (int n = 0; n < STEPS_PER_TURN && sweep->next < PARTS && sweep->asked < ASKED_MAX;
	     n++) {
		if (sweep->bucket == NULL)
			bucket_open(service);
		else
			bucket_step(service);
	}
	gone_turn(service, now_ms);
	/* Of the last bucket answers may still be on their way. */
	if (sweep->next == PARTS && sweep->asked == 0 && sweep->none_gone)
		pass_end(service, now_ms);
}

bool sweep_is_busy(const struct service *service)
{
	return service->sweep.tree != NULL;
}

void sweep_end(struct service *service)
{
	if (service->sweep.bucket != NULL)
		(void)closedir(service->sweep.bucket);
	if (service->sweep.spool != NULL)
		(void)closedir(service->sweep.spool);
	service->sweep.bucket = service->sweep.spool = NULL;
	tree_end(&service->sweep);
}
