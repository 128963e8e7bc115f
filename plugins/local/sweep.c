/* SPDX-License-Identifier: Apache-2.0
 *
 * Attempts that nobody needs any more are deleted, some at each turn of the loop, so that a spool does not grow for ever.
 *
 * The rule: nothing of it lives, it is not in hand, it has not changed for keep_ms, and the broker says that its job is at its end
 * or at a later attempt, and that this is the intent's tag of the attempt: in a spool that two brokers share there may be another of
 * its number. Of a job or tag that the broker does not know (any more) only attempts go whose last report this
 * scheduler saw accepted: the others may be another gateway's, and to forget an attempt is to allow it again.
 *
 * What it meets that lives, of an attempt that is over since a reset, is former.c's to end. By the tag alone: it may be another broker's.
 *
 * A directory leaves its place by one rename before its files go: a shepherd that was stopped for
 * as long never finds half of it. A job's working directory may have any size and shape: tree.h
 * deletes it, for DELETE_MS of a turn; files that cannot be deleted are logged and tried again with
 * the next pass.
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

#include "service.h"
#include "tree.h"

enum {
	BUCKETS = 256,
	STEPS_PER_TURN = 64,
	ASKED_MAX = 16,
	PASS_MS_MIN = 1000,
	PASS_MS_MAX = 3600000,
	CLOCK_SLEW_MS = 60000,
	CLOCK_STAND_MS = 900000, /* as the broker has it */
	DELETE_MS = 10,
	DELETE_ENTRIES = 4,   /* between two looks at the clock */
	TREE_MS_MAX = 3600000 /* a process still makes files in it: the next tree has its turn */
};

static const char reported[] = "reported", gone[] = "gone.";

struct question {
	struct service *service;
	uint32_t attempt;
	bool runs;
	char *job;
	char life[ATTEMPT_LIFE_BYTES];
	char tag[ATTEMPT_TAG_MAX];
	char dir[ATTEMPT_PATH_MAX];
};

void sweep_reported(const char *dir)
{
	int dir_fd = attempt_open(dir), fd;

	if (dir_fd < 0)
		return;
	/* Not synced: without it the attempt only stays longer. */
	fd = openat(dir_fd, reported, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
	if (fd >= 0)
		(void)close(fd);
	(void)close(dir_fd);
}

/* ---- deleting ---- */

static void tree_end(struct sweep *sweep)
{
	tree_close(sweep->tree);
	sweep->tree = NULL;
}

/* Logged once, not with each pass. */
static void stays(struct service *service, const char *name, const char *why)
{
	char text[ATTEMPT_PATH_MAX + 2 * ATTEMPT_ERROR_BYTES];

	switch (notes_meet(&service->sweep.notes, name, why, service_now_ms())) {
	case NOTE_KNOWN:
		return;
	case NOTE_NEW:
		(void)snprintf(text, sizeof(text), "%s %s", name, why);
		break;
	case NOTE_FULL:
		(void)snprintf(text, sizeof(text), "more than %d things stay in the spool; not all are named",
			       NOTES_MAX);
		break;
	}
	service_log(service, SLUICE_LOG_WARN, "local.sweep", NULL, text);
}

static void gone_stays(struct service *service, const char *name, const char *why)
{
	char text[2 * ATTEMPT_ERROR_BYTES];

	(void)snprintf(text, sizeof(text), "cannot be deleted from the spool: %s", why);
	stays(service, name, text);
}

static void attempt_delete(struct service *service, const char *dir)
{
	char path[sizeof(service->settings.spool) + 64];

	(void)snprintf(path, sizeof(path), "%s/%s%d.%" PRIu64, service->settings.spool, gone, (int)getpid(),
		       ++service->sweep.deleted);
	if (rename(dir, path) != 0) {
		gone_stays(service, dir, strerror(errno));
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
		gone_stays(service, entry->d_name, attempt_error());
}

static void gone_turn(struct service *service, uint64_t now_ms)
{
	struct sweep *sweep = &service->sweep;
	int rc;

	for (uint64_t now = now_ms; !sweep->none_gone && now < now_ms + DELETE_MS; now = service_now_ms()) {
		if (sweep->tree == NULL) {
			gone_next(service, now);
			continue;
		}
		rc = tree_step(sweep->tree, DELETE_ENTRIES);
		if (rc < 0)
			gone_stays(service, sweep->tree_name, attempt_error());
		else if (rc > 0 && now - sweep->tree_ms > TREE_MS_MAX)
			gone_stays(service, sweep->tree_name, "its files increase while they are deleted");
		else if (rc > 0)
			continue;
		tree_end(sweep);
	}
}

/* ---- asking ---- */

static bool was_reported(const struct question *question)
{
	int fd = attempt_open(question->dir);
	bool is = fd >= 0 && faccessat(fd, reported, F_OK, AT_SYMLINK_NOFOLLOW) == 0;

	if (fd >= 0)
		(void)close(fd);
	return is;
}

/* It may have come back to life since it was asked for. */
static bool at_rest(const struct service *service, const char *dir, const char *job, uint32_t attempt)
{
	struct attempt_view view;

	return job_find(service, job, attempt) == NULL && attempt_look(dir, &view) == 0 &&
	       view.state != ATTEMPT_RUNNING;
}

static void answered(struct question *question, bool over)
{
	struct service *service = question->service;

	service->sweep.asked--;
	if (over && question->runs) {
		former_found(service, question->job, question->attempt, question->life);
	} else if (over && at_rest(service, question->dir, question->job, question->attempt)) {
		attempt_delete(service, question->dir);
	}
	free(question->job);
	free(question);
}

static void on_history(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct question *question = user;
	bool known = !question->runs && was_reported(question);
	sluice_job_history_row row;

	(void)client;
	for (size_t i = 0; !known && sluice_reply_code(reply) == 0 && sluice_reply_history(reply, i, &row);
	     i++)
		known = row.attempt == question->attempt && strcmp(row.event, "intent") == 0 &&
			strcmp(row.evidence, question->tag) == 0;
	answered(question, known);
}

static void on_shown(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct question *question = user;
	sluice_call call = {.deadline_ms = -1, .done = on_history, .user = question};
	sluice_job_info info;

	if (sluice_reply_code(reply) == SLUICE_E_NOT_FOUND) {
		answered(question, !question->runs && was_reported(question));
		return;
	}
	if (sluice_reply_code(reply) == 0 && sluice_reply_job(reply, 0, &info)) {
		if (info.attempt == question->attempt && info.terminal && !question->runs) {
			answered(question, strcmp(info.tag, question->tag) == 0 || was_reported(question));
			return;
		}
		if (info.attempt > question->attempt &&
		    sluice_job_history(client, question->job, &call, NULL) == 0)
			return;
	}
	answered(question, false);
}

static void ask(struct service *service, const char *dir, const char *job, uint32_t attempt, const char *life,
		bool runs)
{
	struct question *question = calloc(1, sizeof(*question));
	sluice_call call = {.deadline_ms = -1, .done = on_shown, .user = question};

	if (question == NULL || (question->job = strdup(job)) == NULL) {
		free(question);
		return;
	}
	question->service = service;
	question->attempt = attempt;
	question->runs = runs;
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
	const int64_t boot_ms = clock_ms(CLOCK_BOOTTIME), apart_ms = clock_ms(CLOCK_REALTIME) - boot_ms;

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
	age_ms = (now_ms < believed_ms ? now_ms : believed_ms) - (int64_t)info.st_mtim.tv_sec * 1000 -
		 info.st_mtim.tv_nsec / 1000000;
	return age_ms >= 0 && (uint64_t)age_ms >= service->settings.keep_ms;
}

static void look_at_attempt(struct service *service, const char *dir, const char *job, const char *name)
{
	struct attempt_view view;
	char *end = NULL;
	unsigned long attempt = strtoul(name, &end, 10);

	if (attempt == 0 || attempt > UINT32_MAX || *end != '.')
		return;
	if (attempt_look(dir, &view) != 0)
		return;
	/* In hand or not: its session, and with it the word of its lost lease, may be gone. */
	if (view.state == ATTEMPT_RUNNING) {
		ask(service, dir, job, (uint32_t)attempt, end + 1, true);
		return;
	}
	/* An empty one is of a claim that came to no intent; who is about to start something in it makes it again. */
	if (job_find(service, job, (uint32_t)attempt) == NULL && is_old(service, dir) && rmdir(dir) != 0)
		ask(service, dir, job, (uint32_t)attempt, end + 1, false);
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

/* One directory of a job, or of a part of its id: attempts are in it, or further parts. path and job are extended in place. */
static void look_at_job(struct service *service, char *path, size_t path_len, char *job, size_t job_len)
{
	bool more = path[path_len - 1] == '~';
	DIR *dir = dir_open(path);
	const struct dirent *entry;

	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		size_t name_len = strlen(entry->d_name), len;

		if (entry->d_name[0] == '.' || path_len + 1 + name_len >= ATTEMPT_PATH_MAX)
			continue;
		path[path_len] = '/';
		memcpy(path + path_len + 1, entry->d_name, name_len + 1);
		if (!more)
			look_at_attempt(service, path, job, entry->d_name);
		else if (attempt_job_part(entry->d_name, job, job_len, &len) == 0)
			look_at_job(service, path, path_len + 1 + name_len, job, len);
		path[path_len] = job[job_len] = 0;
	}
	if (dir != NULL)
		(void)closedir(dir);
	(void)rmdir(path); /* when nothing is left in it */
}

/* The next entry of the bucket that is being read. */
static void bucket_step(struct service *service)
{
	struct sweep *sweep = &service->sweep;
	const struct dirent *entry = readdir(sweep->bucket);
	char path[ATTEMPT_PATH_MAX], job[ATTEMPT_JOB_MAX + 1];
	size_t job_len;
	int len;

	if (entry == NULL) {
		(void)closedir(sweep->bucket);
		sweep->bucket = NULL;
		sweep->next++;
		return;
	}
	len = snprintf(path, sizeof(path), "%s/%02x/%s", service->settings.spool, sweep->next, entry->d_name);
	if (entry->d_name[0] != '.' && len > 0 && (size_t)len < sizeof(path) &&
	    attempt_job_part(entry->d_name, job, 0, &job_len) == 0)
		look_at_job(service, path, (size_t)len, job, job_len);
}

static void bucket_open(struct service *service)
{
	struct sweep *sweep = &service->sweep;
	char path[sizeof(service->settings.spool) + 16];

	(void)snprintf(path, sizeof(path), "%s/%02x", service->settings.spool, sweep->next);
	sweep->bucket = dir_open(path);
	if (sweep->bucket == NULL)
		sweep->next++;
}

static void pass_end(struct service *service, uint64_t now_ms)
{
	struct sweep *sweep = &service->sweep;
	uint64_t pause_ms = service->settings.keep_ms / 10;
	char text[64];

	pause_ms = pause_ms < PASS_MS_MIN ? PASS_MS_MIN : pause_ms > PASS_MS_MAX ? PASS_MS_MAX : pause_ms;
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
	for (int n = 0; n < STEPS_PER_TURN && sweep->next < BUCKETS && sweep->asked < ASKED_MAX; n++) {
		if (sweep->bucket == NULL)
			bucket_open(service);
		else
			bucket_step(service);
	}
	gone_turn(service, now_ms);
	/* Of the last bucket answers may still be on their way. */
	if (sweep->next == BUCKETS && sweep->asked == 0 && sweep->none_gone)
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
