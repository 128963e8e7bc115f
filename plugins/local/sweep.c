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
 * A directory leaves its place by one rename before its files go: a shepherd that was stopped for as long never finds half of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "service.h"

enum {
	BUCKETS = 256,
	STEPS_PER_TURN = 64,
	ASKED_MAX = 16,
	PASS_MS_MIN = 1000,
	PASS_MS_MAX = 3600000,
	TREE_FDS_MAX = 16
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
	char path[ATTEMPT_PATH_MAX + 16];
	int fd;

	/* Not synced: without it the attempt only stays longer. */
	(void)snprintf(path, sizeof(path), "%s/%s", dir, reported);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0)
		(void)close(fd);
}

/* ---- deleting ---- */

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *walk)
{
	(void)info;
	(void)type;
	(void)walk;
	(void)remove(path); /* what cannot go now is tried again with the next pass */
	return 0;
}

static void tree_delete(const char *path)
{
	(void)nftw(path, remove_one, TREE_FDS_MAX, FTW_DEPTH | FTW_PHYS);
}

static void attempt_delete(struct service *service, const char *dir)
{
	char path[sizeof(service->settings.spool) + 64];

	(void)snprintf(path, sizeof(path), "%s/%s%d.%" PRIu64, service->settings.spool, gone, (int)getpid(),
		       ++service->sweep.deleted);
	if (rename(dir, path) != 0) {
		service_log(service, SLUICE_LOG_WARN, "local.sweep", NULL, strerror(errno));
		return;
	}
	service->sweep.in_pass++;
	tree_delete(path);
}

/* What a scheduler left that died between rename and deletion. */
static void leftovers_delete(struct service *service)
{
	char path[sizeof(service->settings.spool) + 264];
	DIR *dir = opendir(service->settings.spool);
	const struct dirent *entry;

	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		if (strncmp(entry->d_name, gone, strlen(gone)) != 0)
			continue;
		(void)snprintf(path, sizeof(path), "%s/%s", service->settings.spool, entry->d_name);
		tree_delete(path);
	}
	if (dir != NULL)
		(void)closedir(dir);
}

/* ---- asking ---- */

static bool was_reported(const struct question *question)
{
	char path[ATTEMPT_PATH_MAX + 16];

	(void)snprintf(path, sizeof(path), "%s/%s", question->dir, reported);
	return access(path, F_OK) == 0;
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

static bool is_old(const struct service *service, const char *dir)
{
	struct timespec now;
	struct stat info;
	int64_t age_ms;

	if (stat(dir, &info) != 0)
		return false;
	(void)clock_gettime(CLOCK_REALTIME, &now);
	age_ms = ((int64_t)now.tv_sec - info.st_mtim.tv_sec) * 1000 +
		 (now.tv_nsec - info.st_mtim.tv_nsec) / 1000000;
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

/* One directory of a job, or of a part of its id: attempts are in it, or further parts. path and job are extended in place. */
static void look_at_job(struct service *service, char *path, size_t path_len, char *job, size_t job_len)
{
	bool more = path[path_len - 1] == '~';
	DIR *dir = opendir(path);
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
	sweep->bucket = opendir(path);
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
}

void sweep_turn(struct service *service, uint64_t now_ms)
{
	struct sweep *sweep = &service->sweep;

	if (sweep->due_ms > now_ms)
		return;
	if (sweep->next == 0 && sweep->bucket == NULL)
		leftovers_delete(service);
	for (int n = 0; n < STEPS_PER_TURN && sweep->next < BUCKETS && sweep->asked < ASKED_MAX; n++) {
		if (sweep->bucket == NULL)
			bucket_open(service);
		else
			bucket_step(service);
	}
	/* Of the last bucket answers may still be on their way. */
	if (sweep->next == BUCKETS && sweep->asked == 0)
		pass_end(service, now_ms);
}

void sweep_end(struct service *service)
{
	if (service->sweep.bucket != NULL)
		(void)closedir(service->sweep.bucket);
	service->sweep.bucket = NULL;
}
