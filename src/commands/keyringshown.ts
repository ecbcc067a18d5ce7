import type { KeyholdClient } from "../client/api.ts";
import type { KeyringKeyInfo, KeyringRequestInfo } from "../client/keyringapi.ts";
import { isAway } from "../client/opened.ts";
import { Fault } from "../errors.ts";
import { plain } from "../ui/text.ts";

/** What keyrings make. */
export const KEYRING_TYPES = ["secp256k1", "schnorr", "ed25519", "p256"] as const;

/** A name with an Ed25519 public key, as `NAME=KEY`. @throws Fault usage */
export function namedKey(text: string, what: string, hint: string): { readonly name: string; readonly keyHex: string } {
  const [, name, keyHex] = /^([a-z0-9][a-z0-9._-]{0,63})=([0-9a-fA-F]{64})$/.exec(text) ?? [];
  if (name !== undefined && keyHex !== undefined) return { name, keyHex: keyHex.toLowerCase() };
  throw new Fault("usage", `${what} is given as NAME=KEY with a key of 64 hex digits, not "${text}"`, { hint });
}

const statusOf = ({ status, approved }: KeyringRequestInfo): string =>
  !approved && !keyringEnded(status) ? "waits for owners" : status;

/** Rows of a list of requests to keyrings. */
export function keyringRequestRows(items: readonly KeyringRequestInfo[]) {
  const cells = items.map((one) => [
    one.requestId.slice(0, 16),
    one.kind,
    one.items.map(({ type }) => type).join(", "),
    statusOf(one),
    `${one.workspace} → ${one.keyring}`,
    one.expiresAt,
  ]);
  return { heads: ["REQUEST", "KIND", "TYPE", "STATUS", "WORKSPACE → KEYRING", "EXPIRES"], cells };
}

type Line = readonly [label: string, value: string];

/** Facts of a request as lines under one another, as wide as the longest label. */
export function aligned(lines: readonly Line[]): string[] {
  const width = Math.max(0, ...lines.map(([label]) => Bun.stringWidth(plain(label))));
  return lines.map(([label, value]) => {
    const shown = plain(label);
    return `  ${shown}${" ".repeat(width - Bun.stringWidth(shown))}  ${plain(value)}`;
  });
}

/** What an item says, each fact once. */
function itemLines(item: KeyringRequestInfo["items"][number]): readonly Line[] {
  const { keyId, publicKeyHex, signatureHex } = item;
  const head: readonly Line[] = [
    ["type", item.type],
    ...(keyId === null ? [] : [["key", keyId] as const]),
    ...(publicKeyHex === null ? [] : [["public key", publicKeyHex] as const]),
  ];
  const facts = item.facts.lines
    .map(({ label, value }): Line => [label, value])
    .filter(([label, value]) => head.every(([known, said]) => known !== label || said !== value));
  return [...head, ...facts, ...(signatureHex === null ? [] : [["signature", signatureHex] as const])];
}

/** Shares that were let out go to the client of who asked, and to no other device before it is linked. */
function waitsForClient(
  { kind, status, finishable, threshold, requester }: KeyringRequestInfo,
  answers: number,
): Line[] {
  if (kind !== "signature" || status !== "partial" || finishable || answers < threshold) return [];
  return [["waits for", `the client of ${requester}, which finishes it: keyhold request watch`]];
}

/** A request to a keyring for people: facts, parties, votes. */
export function keyringRequestLines(info: KeyringRequestInfo): string {
  const parties = aligned(info.parties.map(({ name, state }) => [name, state]));
  const votes = info.votes.map(
    (v) => `  ${v.verdict === "approve" ? "✔" : "✘"} ${plain(v.owner)}${v.reason === "" ? "" : `: ${plain(v.reason)}`}`,
  );
  const answers = info.parties.filter(({ state }) => state === "answered").length;
  const head: readonly Line[] = [
    ["request", info.requestId],
    ["words", `${info.words.join(" ")}   (compare them aloud)`],
    ["asked by", `${info.requester}, of ${info.workspace}`],
    ["keyring", `${info.keyring}: ${answers} answered, ${info.threshold} needed`],
    ["fee", `${info.fee} ${info.fee === 1 ? "credit" : "credits"}`],
    ["expires", info.expiresAt],
    ...waitsForClient(info, answers),
  ];
  const [only, another] = info.items;
  const facts =
    only && !another
      ? aligned([...head, ...itemLines(only)])
      : [...aligned(head), ...info.items.flatMap((item, i) => [`Item ${i + 1}`, ...aligned(itemLines(item))])];
  return [
    `${info.kind} request: ${statusOf(info)}${info.why === "" ? "" : `: ${plain(info.why)}`}`,
    ...facts,
    "Parties",
    ...parties,
    ...(votes.length > 0 ? ["Votes", ...votes] : []),
  ].join("\n");
}

/** A key of a workspace for people. */
export function keyringKeyLines(key: KeyringKeyInfo): string {
  return aligned([
    ["key", key.keyId],
    ["type", key.type],
    ["public key", key.publicKeyHex],
    ["workspace", key.workspace],
    ["keyring", key.keyring],
    ["custody", key.shown],
    ["holders", `servers ${key.holders.join(", ")}, of which ${key.threshold} sign`],
    ["confirmed by", key.confirmedBy.join(", ")],
    ["made", key.createdAt],
  ]).join("\n");
}

/** What is new in the lines of a request since they were shown: all of them the first time. */
export function newLines(before: string, now: string): string {
  if (before === "") return now;
  const known = new Set(before.split("\n"));
  return now
    .split("\n")
    .filter((line) => !known.has(line))
    .join("\n");
}

/** Parties of an open request whose connectors are not well, and why: what their silence means. */
export async function unwellParties(client: KeyholdClient, info: KeyringRequestInfo): Promise<readonly string[]> {
  const waiting = new Set(info.parties.filter(({ state }) => state === "waiting").map(({ name }) => name));
  if (!info.approved || waiting.size === 0) return [];
  try {
    const { parties } = await client.keyring({ keyring: info.keyring });
    return parties
      .filter(({ name, state }) => waiting.has(name) && state !== "ok")
      .map(({ name, state }) => `  ${plain(name)}: ${plain(state)}`);
  } catch (error) {
    // only a help to those who wait
    if (error instanceof Fault && error.code !== "integrity") return [];
    throw error;
  }
}

/** True for a request that is over. */
export const keyringEnded = (status: string): boolean => status !== "pending" && status !== "partial";

/** The request to a keyring that an id, or the start of one, means; null where there is none. */
export async function ofKeyring(client: KeyholdClient, text: string): Promise<KeyringRequestInfo | null> {
  if (!/^[0-9a-f]{6,64}$/.test(text)) return null;
  try {
    return await client.keyringRequest({ requestId: text });
  } catch (error) {
    if (error instanceof Fault && (error.code === "not_found" || NOT_HERE.has(error.code))) return null;
    throw error;
  }
}

/** The key of a workspace that an id, or the start of one, means; null where there is none. */
export async function keyOfWorkspace(client: KeyholdClient, text: string): Promise<KeyringKeyInfo | null> {
  if (!/^[0-9a-f]{8,64}$/.test(text)) return null;
  try {
    return await client.keyringKey({ key: text });
  } catch (error) {
    if (error instanceof Fault && (error.code === "not_found" || NOT_HERE.has(error.code))) return null;
    throw error;
  }
}

/** Faults of an account that has nothing to do with keyrings; `bad_input` of a profile without a server. */
const NOT_HERE: ReadonlySet<string> = new Set(["bad_input", "unsupported", "denied", "not_logged_in"]);

/** Requests of all workspaces of this account, newest first; none where its server is away or no registry. */
export async function requestsOfWorkspaces(
  client: KeyholdClient,
  status: string | null,
  notice: (text: string) => void,
): Promise<readonly KeyringRequestInfo[]> {
  try {
    const found: KeyringRequestInfo[] = [];
    for (const { workspaceId } of await client.workspaces())
      found.push(...(await client.keyringRequests({ workspace: workspaceId, status })));
    return found;
  } catch (error) {
    if (isAway(error)) notice(`requests of workspaces are left out: ${error.message}`);
    else if (!(error instanceof Fault && NOT_HERE.has(error.code))) throw error;
    return [];
  }
}

/** What waits for this account's word in its workspaces; nothing for an account without any. */
export async function inboxOf(client: KeyholdClient): Promise<readonly KeyringRequestInfo[]> {
  try {
    return await client.keyringInbox();
  } catch (error) {
    if (error instanceof Fault && NOT_HERE.has(error.code)) return [];
    throw error;
  }
}
