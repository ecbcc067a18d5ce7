import type { KeyholdClient } from "../client/api.ts";
import type { FederatedRequestInfo, FederatedResult } from "../client/federationapi.ts";
import { wipe } from "../crypto/bytes.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { OUT_FILE_ARGS, outFile, putFile } from "../ui/outfile.ts";
import { listing, result } from "../ui/output.ts";
import { withClient } from "../ui/session.ts";
import { plain } from "../ui/text.ts";
import { federatedResult, hasEnded, requestLines, requestOf } from "./federated.ts";

const ID = { type: "positional", description: "the request's id, or the start of it" } as const;
const LOOK_MS = 2_000;

/** Rows of a list of requests. */
export function requestRows(items: readonly FederatedRequestInfo[]) {
  const cells = items.map((one) => [
    one.requestId.slice(0, 16),
    one.kind,
    one.name ?? "",
    one.status.replaceAll("_", " "),
    one.federation,
    one.expiresAt,
  ]);
  return { heads: ["REQUEST", "KIND", "KEY", "STATUS", "FEDERATION", "EXPIRES"], cells };
}

export const requestList = defineCommand({
  list: true,
  args: {},
  data: "{items:[{requestId, federation, kind, status, keyId, name, createdAt, expiresAt, servers, votes, culprits}], next}",
  examples: [["keyhold request list", "your requests to federations, newest first"]],
  run: async (_args, ctx) =>
    withClient(ctx, async (client) => {
      const items = await client.federatedRequests();
      return listing({ items, next: null }, requestRows(items));
    }),
});

export const requestShow = defineCommand({
  args: { request: ID },
  data: "{requestId, federation, kind, status, keyId, name, words, facts, servers, votes, culprits, createdAt, expiresAt}",
  examples: [["keyhold request show 4f1c2a", "what each server says of it, and every vote"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const { requestId } = requestOf(await client.federatedRequests(), args.request);
      const info = await client.federatedRequest({ requestId });
      return result(info, () => requestLines(info));
    }),
});

export const requestCancel = defineCommand({
  args: { request: ID },
  data: "{requestId, federation, kind, status, …}",
  details: "Final: the servers drop what they hold for it. A request that is fulfilled cannot be cancelled.",
  examples: [["keyhold request cancel 4f1c2a", "give up a request"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const { requestId } = requestOf(await client.federatedRequests(), args.request);
      await ctx.term.confirm(`Cancel request ${requestId.slice(0, 16)} for good?`);
      const info = await client.cancelRequest({ requestId });
      return result(info, () => requestLines(info));
    }),
});

/** Waits and looks again until the request can go on or has ended; says what changed. */
async function watched(ctx: Context, client: KeyholdClient, requestId: string): Promise<FederatedResult> {
  let last = "";
  for (;;) {
    const info = await client.federatedRequest({ requestId });
    const text = requestLines(info);
    if (text !== last && !ctx.flags.json) ctx.out.notice(text);
    last = text;
    if (info.status !== "awaiting_approval" || hasEnded(info.status)) {
      const led = await client.continueRequest({ requestId });
      wipe(led.value ?? undefined);
      if (led.status !== "awaiting_approval" && led.status !== "pending") return led;
    }
    await pause(LOOK_MS, ctx.signal);
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason as Error);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal.addEventListener("abort", stop, { once: true });
  });
}

export const requestWatch = defineCommand({
  args: {
    request: ID,
    ...OUT_FILE_ARGS,
    out: { type: "string", hint: "FILE", description: "write the signature, as bytes" },
  },
  data: "{requestId, status, keyId, publicKeyHex, signatureHex, scheme, absent}",
  details: `Shows each server and each vote as they come, and goes on as soon as it can. Nothing is lost by Ctrl-C: the request
stays, and the command may be given again. A value that was asked for by \`key retrieve\` is fetched by that command.`,
  examples: [["keyhold request watch 4f1c2a", "wait for the votes, then finish"]],
  run: async (args, ctx) => {
    const file = outFile(args);
    return withClient(ctx, async (client) => {
      const { requestId } = requestOf(await client.federatedRequests(), args.request);
      const led = await watched(ctx, client, requestId);
      if (file !== null && led.signatureHex !== null) putFile(file, Uint8Array.fromHex(led.signatureHex));
      return federatedResult(led, ({ signatureHex, keyId }) => plain(signatureHex ?? keyId ?? led.status));
    });
  },
});
