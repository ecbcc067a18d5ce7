import type { KeyholdClient } from "../client/api.ts";
import type { FederatedRequestInfo } from "../client/federationapi.ts";
import type { KeyringRequestInfo } from "../client/keyringapi.ts";
import { Fault } from "../errors.ts";
import { defineCommand } from "../ui/command.ts";
import { listing, result } from "../ui/output.ts";
import { withClient } from "../ui/session.ts";
import { requestLines, requestOf } from "./federated.ts";
import { inboxOf, keyringEnded, keyringRequestLines, keyringRequestRows, ofKeyring } from "./keyringshown.ts";
import { requestRows } from "./request.ts";

const ID = { type: "positional", description: "the request's id, or the start of it" } as const;

/** A request that waits for this account's word: of a federation, or of a workspace. */
type Waiting =
  | { readonly of: "federation"; readonly info: FederatedRequestInfo }
  | { readonly of: "keyring"; readonly info: KeyringRequestInfo };

/** The one that an id, or the start of one, means. @throws Fault not_found, ambiguous */
async function meant(client: KeyholdClient, text: string): Promise<Waiting> {
  try {
    return { of: "federation", info: requestOf(await client.approvals(), text) };
  } catch (error) {
    if (!(error instanceof Fault) || error.code !== "not_found") throw error;
    const found = (await inboxOf(client)).filter((one) => text.length >= 6 && one.requestId.startsWith(text));
    const [info, other] = found;
    if (other) throw new Fault("ambiguous", `more than one request begins with "${text}"`);
    // of one that this account has voted on, or that is over, the registry says what is so
    const known = info ?? (await ofKeyring(client, text));
    if (known) return { of: "keyring", info: known };
    throw error;
  }
}

const linesOf = (one: Waiting): string =>
  one.of === "federation" ? requestLines(one.info) : keyringRequestLines(one.info);

export const approvalList = defineCommand({
  list: true,
  args: {},
  data: "{items:[{requestId, federation | workspace and keyring, kind, status, words, votes, …}], next}",
  examples: [["keyhold approval list", "what waits for your word, in federations and workspaces"]],
  run: async (_args, ctx) =>
    withClient(ctx, async (client) => {
      const [federated, ofWorkspaces] = [await client.approvals(), await inboxOf(client)];
      const items = [...federated, ...ofWorkspaces];
      const { heads, cells } = requestRows(federated);
      const { cells: more } = keyringRequestRows(ofWorkspaces);
      return listing({ items, next: null }, { heads, cells: [...cells, ...more] });
    }),
});

export const approvalShow = defineCommand({
  args: { request: ID },
  data: "{requestId, kind, status, words, votes, …}",
  details:
    "The request is verified here: what a server says of it does not count. Compare the words with the requester.",
  examples: [["keyhold approval show 4f1c2a", "what you would approve, in words"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const one = await meant(client, args.request);
      return result(one.info, () => linesOf(one));
    }),
});

/** Nobody is asked about what is over. @throws Fault conflict */
function demandOpen({ of, info }: Waiting): void {
  if (of === "keyring" && keyringEnded(info.status)) {
    throw new Fault("conflict", `this request is over: it is ${info.status}`, {
      hint: `keyhold request show ${info.requestId.slice(0, 16)}`,
    });
  }
}

async function vote(client: KeyholdClient, one: Waiting, verdict: "approve" | "reject", reason: string) {
  const cast = { requestId: one.info.requestId, verdict, reason };
  return one.of === "federation" ? client.vote(cast) : client.voteKeyring(cast);
}

export const approvalApprove = defineCommand({
  args: { request: ID },
  data: "{requestId, status, votes, …}",
  details: "Signs this very request, under the policy of now; every server verifies it, and so does every enclave.",
  examples: [["keyhold approval approve 4f1c2a", "after comparing the words"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const one = await meant(client, args.request);
      demandOpen(one);
      if (!ctx.flags.json) ctx.out.notice(linesOf(one));
      await ctx.term.confirm(`Approve it? (${one.info.words.join(" ")})`);
      const after = await vote(client, one, "approve", "");
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
      const one = await meant(client, args.request);
      demandOpen(one);
      const after = await vote(client, one, "reject", args.reason);
      return result(after, () => `rejected; the request is ${after.status.replaceAll("_", " ")}`);
    }),
});
