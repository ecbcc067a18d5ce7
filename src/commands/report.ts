import type { Report, ReportIssue } from "../client/api.ts";
import { defineCommand } from "../ui/command.ts";
import { listing } from "../ui/output.ts";
import { withClient } from "../ui/session.ts";

const DAY_MS = 86_400_000;
const OLD_DAYS = 365;

export default defineCommand({
  list: true,
  args: {
    expired: { type: "boolean", description: "only what has expired, or does within 30 days" },
    reused: { type: "boolean", description: "only values that more than one secret has" },
    weak: { type: "boolean", description: "only passwords that are easy to guess" },
    old: { type: "duration", description: "only what was not changed for that long, such as 365d" },
    fail: { type: "boolean", description: "exit 10 if anything is found, for scripts" },
    fresh: { type: "boolean", description: "insist on the server's answer" },
  },
  data: "{items:[{name, keyId, issue, detail}], checked, next}; issue is expired, expires-soon, reused, weak or old; never a value",
  details: `Looks through all secrets; without a flag for everything, with flags for what they name. Passwords, passphrases, logins, PINs and tokens are compared with each other, and what people chose is judged by the guesses that it takes; generated values and keys are not. Values are read in one batch, which the audit log shows as reads, and never leave the process that holds the keys.

It exits 0 whatever it finds, unless --fail is given.`,
  examples: [
    ["keyhold report", "all that should be changed"],
    ["keyhold report --reused --weak", "bad passwords alone"],
    ["keyhold report --expired --fail --json", "for a job that warns"],
  ],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const asked: ReportIssue[] = [
        ...(args.expired ? (["expired", "expires-soon"] as const) : []),
        ...(args.reused ? (["reused"] as const) : []),
        ...(args.weak ? (["weak"] as const) : []),
        ...(args.old === null ? [] : (["old"] as const)),
      ];
      const wanted = (issue: ReportIssue) => asked.length === 0 || asked.includes(issue);
      const oldDays = !wanted("old") ? null : args.old === null ? OLD_DAYS : Math.floor(args.old / DAY_MS);
      const asking = client.report({ oldDays, fresh: args.fresh });
      const { items: all, checked, requestId }: Report = await ctx.term.step("Looking through the secrets", asking);
      const items = all.filter(({ issue }) => wanted(issue));
      const cells = items.map(({ name, issue, detail }) => [name, issue, detail]);
      ctx.out.notice(`${checked} secrets looked at, ${items.length === 0 ? "nothing" : items.length} found`);
      const heads = ["NAME", "ISSUE", "DETAIL"];
      const exit = args.fail && items.length > 0 ? 10 : 0;
      return listing({ items, checked, next: null }, { heads, cells }, { requestId, exit });
    }),
});
