import { defineCommand } from "../ui/command.ts";
import { listing, result } from "../ui/output.ts";
import { withClient } from "../ui/session.ts";
import { requestLines, requestOf } from "./federated.ts";
import { requestRows } from "./request.ts";

const ID = { type: "positional", description: "the request's id, or the start of it" } as const;

export const approvalList = defineCommand({
  list: true,
  args: {},
  data: "{items:[{requestId, federation, kind, status, words, facts, servers, votes}], next}",
  examples: [["keyhold approval list", "what waits for your word"]],
  run: async (_args, ctx) =>
    withClient(ctx, async (client) => {
      const items = await client.approvals();
      return listing({ items, next: null }, requestRows(items));
    }),
});

export const approvalShow = defineCommand({
  args: { request: ID },
  data: "{requestId, federation, kind, status, words, facts, servers, votes}",
  details:
    "The request is verified here: what a server says of it does not count. Compare the words with the requester.",
  examples: [["keyhold approval show 4f1c2a", "what you would approve, in words"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const info = requestOf(await client.approvals(), args.request);
      return result(info, () => requestLines(info));
    }),
});

export const approvalApprove = defineCommand({
  args: { request: ID },
  data: "{requestId, status, votes, …}",
  details: "Signs this very request, under the policy of now; every server verifies it, and so does every enclave.",
  examples: [["keyhold approval approve 4f1c2a", "after comparing the words"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const info = requestOf(await client.approvals(), args.request);
      if (!ctx.flags.json) ctx.out.notice(requestLines(info));
      await ctx.term.confirm(`Approve it? (${info.words.join(" ")})`);
      const after = await client.vote({ requestId: info.requestId, verdict: "approve", reason: "" });
      return result(after, () => `approved; the request is ${after.status.replaceAll("_", " ")}`);
    }),
});

export const approvalReject = defineCommand({
  args: {
    request: ID,
    reason: { type: "string", hint: "TEXT", required: true, description: "why, for the requester" },
  },
  data: "{requestId, status, votes, …}",
  examples: [['keyhold approval reject 4f1c2a --reason "not this quarter"', "the requester reads the reason"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const { requestId } = requestOf(await client.approvals(), args.request);
      const after = await client.vote({ requestId, verdict: "reject", reason: args.reason });
      return result(after, () => `rejected; the request is ${after.status.replaceAll("_", " ")}`);
    }),
});
