/* SPDX-License-Identifier: Apache-2.0
 *
 * The way of a command into a commit, and of a consumer out of the broker.
 *
 * Commands are sent in two lanes. Of one sender and lane they enter commits, and are answered in
 * them, in the order in which they were sent; control before data. While data waits, each commit
 * takes some of it, and control takes at most half of the commit's bytes, or one command.
 *
 * A consumer that was closed ends once. Until then it may be given more; after that, nothing.
 */
#include <stddef.h>

#include "tests/sim/oracle_internal.h"

/* ---- commands ---- */

void oracle_commits_begin(struct oracle *o, uint64_t batch_bytes)
{
	note(o, 70, batch_bytes, 0);
	o->commits.batch_bytes = batch_bytes;
	o->commits.sent_count = o->commits.answer_count = 0;
	o->tag_count = 0;
}

void oracle_command_sent(struct oracle *o, uint32_t command, uint64_t sender, bool control,
			 uint64_t bytes)
{
	struct commits *l = &o->commits;

	note(o, 71, command, bytes << 1 | control);
	if (l->sent_count == ORACLE_COMMANDS_MAX)
		broken(o, "more commands than the oracle has room for");
	else
		l->sent[l->sent_count++] = (struct sent){.command = command,
							 .sender = sender,
							 .bytes = bytes,
							 .control = control};
}

static bool same_lane(const struct sent *a, const struct sent *b)
{
	return a->sender == b->sender && a->control == b->control;
}

void oracle_command_answered(struct oracle *o, uint32_t command)
{
	struct commits *l = &o->commits;
	uint32_t at = 0;

	note(o, 72, command, 0);
	while (at < l->sent_count && l->sent[at].command != command)
		at++;
	if (at == l->sent_count || l->sent[at].answered) {
		broken(o, "command %u is answered, and does not wait", command);
		return;
	}
	l->sent[at].answered = true;
	for (uint32_t i = 0; i < l->answer_count; i++) {
		const struct sent *before = &l->sent[l->answers[i]];

		if (l->answers[i] > at && same_lane(before, &l->sent[at]))
			broken(o, "command %u is answered after command %u of the same lane",
			       command, before->command);
		if (l->sent[at].control && !before->control)
			broken(o, "control command %u is answered after command %u, which is data",
			       command, before->command);
	}
	l->answers[l->answer_count++] = at;
}

static void order_check(struct oracle *o, uint32_t waiting)
{
	const struct commits *l = &o->commits;

	for (uint32_t i = 0; i < l->answer_count; i++) {
		if (l->answers[i] > waiting &&
		    same_lane(&l->sent[waiting], &l->sent[l->answers[i]]))
			broken(o, "command %u is in a commit before command %u of the same lane",
			       l->sent[l->answers[i]].command, l->sent[waiting].command);
	}
}

void oracle_commit_ended(struct oracle *o)
{
	struct commits *l = &o->commits;
	uint64_t control_bytes = 0;
	uint32_t controls = 0, datas = 0, kept = 0;
	bool data_waits = false;

	note(o, 73, l->answer_count, l->sent_count);
	for (uint32_t i = 0; i < l->sent_count; i++) {
		const struct sent *sent = &l->sent[i];

		controls += sent->answered && sent->control;
		datas += sent->answered && !sent->control;
		control_bytes += sent->answered && sent->control ? sent->bytes : 0;
		data_waits |= !sent->answered && !sent->control;
		if (!sent->answered)
			order_check(o, i);
	}
	if (data_waits && datas == 0)
		broken(o, "data waits, and a commit of %u control commands takes none", controls);
	if (data_waits && controls > 1 && control_bytes > l->batch_bytes / 2)
		broken(o, "data waits, and control takes %llu bytes of a commit of %llu",
		       U(control_bytes), U(l->batch_bytes));
	for (uint32_t i = 0; i < l->sent_count; i++) {
		if (!l->sent[i].answered)
			l->sent[kept++] = l->sent[i];
	}
	l->sent_count = kept;
	l->answer_count = 0;
}

/* ---- the end of a consumer ---- */

static struct tag *tag_find(struct oracle *o, uint64_t tag)
{
	for (uint32_t i = 0; i < o->tag_count; i++) {
		if (o->tags[i].tag == tag)
			return &o->tags[i];
	}
	return NULL;
}

void oracle_tag_opened(struct oracle *o, uint64_t tag)
{
	note(o, 74, tag, 0);
	if (o->tag_count == sizeof(o->tags) / sizeof(o->tags[0]))
		broken(o, "more consumers have not ended than the oracle has room for");
	else
		o->tags[o->tag_count++] = (struct tag){.tag = tag};
}

void oracle_tag_closed(struct oracle *o, uint64_t tag)
{
	struct tag *t = tag_find(o, tag);

	note(o, 75, tag, 0);
	if (t != NULL)
		t->closed = true;
}

void oracle_tag_given(struct oracle *o, uint64_t tag)
{
	if (tag_find(o, tag) == NULL)
		broken(o, "consumer %llu is given something after its end", U(tag));
}

void oracle_tag_ended(struct oracle *o, uint64_t tag)
{
	struct tag *t = tag_find(o, tag);

	note(o, 76, tag, 0);
	if (t == NULL || !t->closed) {
		broken(o, "consumer %llu ends %s", U(tag),
		       t == NULL ? "twice" : "and was not closed");
		return;
	}
	*t = o->tags[--o->tag_count];
}

void oracle_tags_at_rest(struct oracle *o)
{
	for (uint32_t i = 0; i < o->tag_count; i++) {
		if (o->tags[i].closed)
			broken(o, "consumer %llu was closed and does not end", U(o->tags[i].tag));
	}
}
