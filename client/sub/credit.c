/* SPDX-License-Identifier: Apache-2.0
 * Returns credit to the broker with the next flush. */
#include "client/sub/sub.h"

void sub_credit_back(sluice_sub *sub, uint32_t count)
{
	if (sub->draining || sub->gives_back)
		return;
	uint32_t kept = count < sub->debt ? count : sub->debt;

	sub->debt -= kept;
	sub->owed += count - kept;
}

void sub_release(sluice_sub *sub, uint32_t count)
{
	if (!sub->manual_credit)
		sub_credit_back(sub, count);
}
