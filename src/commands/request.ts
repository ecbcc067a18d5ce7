import type { KeyholdClient } from "../client/api.ts";
import type { FederatedRequestInfo, FederatedResult } from "../client/federationapi.ts";
import type { KeyringRequestInfo } from "../client/keyringapi.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { OUT_FILE_ARGS, outFile, putFile } from "../ui/outfile.ts";
import { listing, result } from "../ui/output.ts";
import { withClient } from "../ui/session.ts";
import { plain } from "../ui/text.ts";
import { federatedResult, hasEnded, requestLines, requestOf } from "./federated.ts";
import { keyringResult, watchKeyring } from "./keyringrequest.ts";
import { keyringRequestLines, keyringRequestRows, ofKeyring, requestsOfWorkspaces } from "./keyringshown.ts";
import { pause } from "./pause.ts";

const ID = { type: "positional", description: "the request's id, or the start of it" } as const;
const LOOK_MS = 2_000;

/**
 * The request that an id, or the start of one, means: to a federation, or to a keyring, with what that is now.
 *
 * @throws Fault not_found, ambiguous
 */
async function meant(
  client: KeyholdClient,
  text: string,
): Promise<{ readonly requestId: string; readonly keyring: KeyringRequestInfo | null }> {
  try {
    return { requestId: requestOf(await client.federatedRequests(), text).requestId, keyring: null };
  } catch (error) {
    if (!(error instanceof Fault) || error.code !== "not_found") throw error;
    const keyring = await ofKeyring(client, text);
    if (keyring === null) throw error;
    return { requestId: keyring.requestId, keyring };
  }
}

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
  args: {
    workspace: { type: "string", hint: "NAME", description: "requests of this workspace to keyrings" },
    status: { type: "string", hint: "STATUS", description: "only those that are so: pending, fulfilled, …" },
  },
  data: "{items:[{requestId, federation | workspace and keyring, kind, status, createdAt, expiresAt, votes, …}], next}",
  examples: [
    ["keyhold request list", "your requests to federations, and those of your workspaces"],
    ["keyhold request list --workspace treasury --status pending", "those of a workspace that are open"],
  ],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      if (args.workspace !== null) {
        const items = await client.keyringRequests({ workspace: args.workspace, status: args.status });
        return listing({ items, next: null }, keyringRequestRows(items));
      }
      const all = await client.federatedRequests();
      const federated = all.filter(({ status }) => args.status === null || status === args.status);
      const ofWorkspaces = await requestsOfWorkspaces(client, args.status, ctx.out.notice);
      const { heads, cells } = requestRows(federated);
      const { cells: more } = keyringRequestRows(ofWorkspaces);
      const items = [...federated, ...ofWorkspaces];
      return listing({ items, next: null }, { heads, cells: [...cells, ...more] });
    }),
});

export const requestShow = defineCommand({
  args: { request: ID },
  data: "{requestId, federation, kind, status, keyId, name, words, facts, servers, votes, culprits, createdAt, expiresAt}",
  examples: [["keyhold request show 4f1c2a", "what each server says of it, and every vote"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const { requestId, keyring } = await meant(client, args.request);
      if (keyring) return result(keyring, () => keyringRequestLines(keyring));
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
      const { requestId, keyring } = await meant(client, args.request);
      await ctx.term.confirm(`Cancel request ${requestId.slice(0, 16)} for good?`);
      if (keyring) {
        const after = await client.cancelKeyringRequest({ requestId });
        return result(after, () => keyringRequestLines(after));
      }
      const info = await client.cancelRequest({ requestId });
      return result(info, () => requestLines(info));
    }),
});

/** What a request led to; `ready` where its value is to be fetched by the command that asked for it, `made` a use that was over before. */
type Watched = FederatedResult & {
  readonly ready?: FederatedRequestInfo;
  readonly made?: FederatedRequestInfo | undefined;
};

/** Waits and looks again until the request can go on or has ended; says what changed. */
async function watched(ctx: Context, client: KeyholdClient, requestId: string): Promise<Watched> {
  let last = "";
  for (;;) {
    const info = await client.federatedRequest({ requestId });
    const text = requestLines(info);
    if (text !== last && !ctx.flags.json) ctx.out.notice(text);
    last = text;
    if (info.status !== "awaiting_approval" && letsOut(info)) return { ...over(null, info), ready: info };
    if (info.status !== "awaiting_approval" || hasEnded(info.status)) {
      const { value, ...led } = await client
        .continueRequest({ requestId })
        .catch((error: unknown) => ({ ...over(error, info), made: uses(info) ? info : undefined, value: null }));
      wipe(value ?? undefined);
      if (led.status !== "awaiting_approval" && led.status !== "pending") return led;
    }
    await pause(LOOK_MS, ctx.signal);
  }
}

const uses = ({ kind }: FederatedRequestInfo): boolean => kind === "sign" || kind === "release";

/** True for a use whose result is a value: only the command that asked for it says where that goes. */
const letsOut = ({ purpose }: FederatedRequestInfo): boolean => purpose === "retrieve" || purpose === "export";

/** A request that this device is done with, or that another one made, is what its servers say; others' faults go on. */
function over(error: unknown, { requestId, status, keyId, servers }: FederatedRequestInfo) {
  if (error !== null && (!(error instanceof Fault && error.code === "not_found") || !hasEnded(status))) throw error;
  const absent = servers.flatMap((one) => (one.status === "absent" ? [one.index] : []));
  return { requestId, status, keyId, publicKeyHex: null, signatureHex: null, scheme: null, absent };
}

export const requestWatch = defineCommand({
  args: {
    request: ID,
    ...OUT_FILE_ARGS,
    out: { type: "string", hint: "FILE", description: "write the signature, as bytes" },
  },
  data: "{requestId, status, keyId, publicKeyHex, signatureHex, scheme, absent}",
  details: `Shows each server and each vote as they come, and goes on as soon as it can. Nothing is lost by Ctrl-C: the request
stays, and the command may be given again. A value that was asked for by \`key retrieve\` or \`key export\` is fetched
by that command, given once more: this one waits for the votes alone.`,
  examples: [["keyhold request watch 4f1c2a", "wait for the votes, then finish"]],
  run: async (args, ctx) => {
    const file = outFile(args);
    return withClient(ctx, async (client) => {
      const { requestId, keyring } = await meant(client, args.request);
      if (keyring) {
        const over = await watchKeyring(ctx, client, requestId);
        const signature = over.items[0]?.signatureHex;
        if (file !== null && signature) putFile(file, Uint8Array.fromHex(signature));
        return keyringResult(over);
      }
      const { ready, made, ...led } = await watched(ctx, client, requestId);
      if (ready && !hasEnded(ready.status)) {
        const again = `keyhold key ${ready.purpose} ${plain(ready.name ?? ready.keyId ?? "NAME")} --out FILE`;
        return result(led, () => `approved; the value is fetched by: ${again}`);
      }
      if (file !== null && led.signatureHex !== null) putFile(file, Uint8Array.fromHex(led.signatureHex));
      return federatedResult(led, ({ signatureHex, keyId }) => {
        if (signatureHex !== null) return file === null ? signatureHex : "";
        return made ? `${made.kind} is ${made.status}: the command that finished it had the result` : (keyId ?? "");
      });
    });
  },
});
