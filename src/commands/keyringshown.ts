import type { KeyholdClient } from "../client/api.ts";
import type { KeyringKeyInfo, KeyringRequestInfo } from "../client/keyringapi.ts";
import { Fault } from "../errors.ts";
import { plain } from "../ui/text.ts";

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

function itemLines(item: KeyringRequestInfo["items"][number]): string[] {
  const facts = item.facts.lines.map(({ label, value }) => `  ${plain(label).padEnd(12)}  ${plain(value)}`);
  return [
    ...(item.keyId === null ? [] : [`  key           ${item.keyId}`]),
    ...(item.publicKeyHex === null ? [] : [`  public key    ${item.publicKeyHex}`]),
    ...facts,
    ...(item.signatureHex === null ? [] : [`  signature     ${item.signatureHex}`]),
  ];
}

/** A request to a keyring for people: facts, parties, votes. */
export function keyringRequestLines(info: KeyringRequestInfo): string {
  const parties = info.parties.map(({ name, state }) => `  ${plain(name).padEnd(16)}  ${plain(state)}`);
  const votes = info.votes.map(
    (v) => `  ${v.verdict === "approve" ? "✔" : "✘"} ${plain(v.owner)}${v.reason === "" ? "" : `: ${plain(v.reason)}`}`,
  );
  const agreed = info.parties.filter(({ state }) => state === "answered").length;
  return [
    `${info.kind} request: ${statusOf(info)}${info.why === "" ? "" : `: ${plain(info.why)}`}`,
    `  request       ${info.requestId}`,
    `  words         ${info.words.join(" ")}   (compare them aloud)`,
    `  requested by  ${plain(info.requester)}, of ${plain(info.workspace)}`,
    `  keyring       ${plain(info.keyring)}: ${agreed} of ${info.threshold} answers`,
    `  fee           ${info.fee} credits`,
    `  expires       ${info.expiresAt}`,
    ...info.items.flatMap((item, i) => [
      ...(info.items.length > 1 ? [`Item ${i + 1}: ${item.type}`] : [`  type          ${item.type}`]),
      ...itemLines(item),
    ]),
    "Parties",
    ...parties,
    ...(votes.length > 0 ? ["Votes", ...votes] : []),
  ].join("\n");
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

/** What waits for this account's word in its workspaces; nothing for an account without any. */
export async function inboxOf(client: KeyholdClient): Promise<readonly KeyringRequestInfo[]> {
  try {
    return await client.keyringInbox();
  } catch (error) {
    if (error instanceof Fault && NOT_HERE.has(error.code)) return [];
    throw error;
  }
}
