import { createHmac } from "node:crypto";
import { wipe } from "../crypto/bytes.ts";
import type { RequestId } from "../ids.ts";
import type { SecretType } from "../protocol/secrettype.ts";
import type { Report, ReportInput, ReportIssue, SecretInfo } from "./api.ts";
import { infoOf } from "./changes.ts";
import { LOOKED_AT, loadEstimator } from "./guesses.ts";
import { type Open, online, save } from "./opened.ts";
import { viewOf } from "./overlay.ts";
import { getManySecrets } from "./reading.ts";
import { synchronise } from "./sync.ts";

type Item = Report["items"][number];

/** Types whose values are compared with each other. */
const COMPARED: ReadonlySet<SecretType> = new Set(["login", "password", "passphrase", "pin", "token"]);
/** Types whose values people choose. */
const CHOSEN: ReadonlySet<SecretType> = new Set(["login", "password", "passphrase"]);
const DAY_MS = 86_400_000;
/** What expires within so many days is named. */
const SOON_DAYS = 30;
/** Decimal logarithm of guesses: less is weak. */
const WEAK_LOG10 = 10;
const ORDER: readonly ReportIssue[] = ["expired", "expires-soon", "reused", "weak", "old"];

/**
 * What is expired, weak, used for more than one secret, or old (docs/records.md). Values are read in one batch, which
 * the log shows as reads, and are compared here: the report holds none.
 */
export async function reportOn(open: Open, input: ReportInput): Promise<Report> {
  const infos = await newest(open, input.fresh);
  const nowMs = open.around.now();
  const items: Item[] = infos.flatMap((info) => dated(info, nowMs, input.oldDays));
  const readable = infos.filter(
    ({ type, where }) => COMPARED.has(type) && (open.session !== null || where !== "server"),
  );
  const { found, requestId } = await compared(open, readable, input.fresh);
  items.push(...found);
  const rank = ({ issue }: Item): number => ORDER.indexOf(issue);
  items.sort((a, b) => rank(a) - rank(b) || (a.name < b.name ? -1 : 1));
  const unread = infos.filter(({ type }) => COMPARED.has(type)).length - readable.length;
  if (unread > 0)
    open.around.notice(`the server is away: ${unread} secret${unread === 1 ? "" : "s"} without a copy here not read`);
  return { items, checked: infos.length - unread, requestId };
}

async function newest(open: Open, fresh: boolean): Promise<readonly SecretInfo[]> {
  await online(open, fresh, async (at) => {
    if (!at) return;
    const { changed } = await synchronise(open.box.model, at.session, open.around, "secret.list");
    if (changed > 0) await save(open);
  });
  return [...viewOf(open.box.model).secrets.values()]
    .filter(({ leaf, meta }) => leaf.status === "live" && meta !== null && meta.type !== "part")
    .map((one) => infoOf(one));
}

function itemOf({ name, keyId }: SecretInfo, issue: ReportIssue, detail: string): Item {
  return { name, keyId, issue, detail };
}

/** What the metadata alone tells. */
function dated(info: SecretInfo, nowMs: number, oldDays: number | null): Item[] {
  const out: Item[] = [];
  if (info.expiresAt !== null) {
    const left = Date.parse(info.expiresAt) - nowMs;
    const day = info.expiresAt.slice(0, 10);
    if (left <= 0) out.push(itemOf(info, "expired", `since ${day}`));
    else if (left <= SOON_DAYS * DAY_MS) out.push(itemOf(info, "expires-soon", `on ${day}`));
  }
  const age = Math.floor((nowMs - Date.parse(info.updatedAt)) / DAY_MS);
  if (oldDays !== null && COMPARED.has(info.type) && age > oldDays) {
    out.push(itemOf(info, "old", `unchanged for ${age} days`));
  }
  return out;
}

async function compared(
  open: Open,
  infos: readonly SecretInfo[],
  fresh: boolean,
): Promise<{ found: Item[]; requestId: RequestId | null }> {
  if (infos.length === 0) return { found: [], requestId: null };
  const refs = infos.map(({ keyId }) => ({ name: keyId, version: null }));
  const got = await getManySecrets(open, { refs, fresh, purpose: "get" });
  const key = open.around.random(32);
  const groups = new Map<string, SecretInfo[]>();
  const found: Item[] = [];
  try {
    for (const { info, value } of got) {
      if (value === null || value.length === 0) continue;
      const mark = createHmac("sha256", key).update(value).digest("hex");
      groups.set(mark, [...(groups.get(mark) ?? []), info]);
      const why = await weakness(info, value);
      if (why !== null) found.push(itemOf(info, "weak", why));
    }
  } finally {
    wipe(key, ...got.flatMap(({ value }) => value ?? []));
  }
  for (const group of groups.values()) {
    if (group.length === 1) continue;
    for (const info of group) {
      const others = group.filter((one) => one !== info).map(({ name }) => JSON.stringify(name));
      const more = others.length > 3 ? ` and ${others.length - 3} more` : "";
      found.push(itemOf(info, "reused", `also in ${others.slice(0, 3).join(", ")}${more}`));
    }
  }
  return { found, requestId: got.find(({ requestId }) => requestId !== null)?.requestId ?? null };
}

/** Why a value is weak, or null. What machines draw at random is not judged by word lists. */
async function weakness(info: SecretInfo, value: Uint8Array): Promise<string | null> {
  if (info.type === "pin") return pinWeakness(new TextDecoder().decode(value));
  if (info.origin === "generated" || !CHOSEN.has(info.type)) return null;
  const text = new TextDecoder().decode(value).slice(0, LOOKED_AT);
  const words = [info.name, info.user ?? "", ...info.urls].flatMap((one) => one.split(/[^\p{L}\p{N}]+/u));
  const { guessesLog10: log10 } = (await loadEstimator())(
    text,
    words.filter((word) => word.length > 2),
  );
  return log10 < WEAK_LOG10 ? `about 10^${Math.max(0, Math.floor(log10))} guesses find it` : null;
}

function pinWeakness(pin: string): string | null {
  const digits = [...pin].map(Number);
  const steps = new Set(digits.slice(1).map((digit, i) => digit - (digits[i] ?? 0)));
  if (steps.size === 1 && [0, 1, -1].some((step) => steps.has(step))) return "a plain row of digits";
  return /^(19|20)\d\d$/.test(pin) ? "a year" : null;
}
