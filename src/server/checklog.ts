import { equalBytes, ZERO_HASH_BYTES } from "../crypto/bytes.ts";
import { appendLeaves, EMPTY_ROOT, foldNodes, frontierOf, type TreeNode } from "../crypto/tree.ts";
import { Fault } from "../errors.ts";
import type { UserId } from "../ids.ts";
import { auditLink, auditPseudonym, continueAudit, type SaltedEntry } from "../protocol/audit.ts";
import { type Checkpoint, openCheckpoint, positionLeaf, restartLeaf, signCheckpoint } from "../protocol/log.ts";
import type { AuditHeadRow, LogHead, LogLeaf, Tx } from "../storage/store.ts";
import type { LogKeys, ServerContext } from "./context.ts";

const PAGE = 500;
const LINES = 20;

type Context = Pick<ServerContext, "store" | "log">;

/** Finds collected for one line of the report; further ones are counted. */
interface Findings {
  readonly wrong: string[];
  more: number;
}

const note = (found: Findings, text: string): void => {
  if (found.wrong.length < LINES) found.wrong.push(text);
  else found.more += 1;
};

/** Where the leaves of one pseudonym stand so far. */
interface Track {
  readonly userId: UserId;
  readonly erased: boolean;
  seq: number;
}

/**
 * Verifies the server-wide log against its own tree and against every account's and shadow's log: each leaf and node,
 * head, checkpoint, the pseudonym and newest leaf of each log, and each entry's link (docs/protocol.md §6.3). Short
 * transactions, so that the server goes on meanwhile.
 *
 * @returns what is wrong, in words; at most 20 lines.
 */
export async function checkLog(ctx: Context): Promise<readonly string[]> {
  const found: Findings = { wrong: [], more: 0 };
  const tracks = await checkHeads(ctx, found);
  await checkTree(ctx, tracks, found);
  if (found.more > 0) found.wrong.push(`${found.more} more`);
  return found.wrong;
}

async function checkHeads(ctx: Context, found: Findings): Promise<Map<string, Track>> {
  const tracks = new Map<string, Track>();
  for (let after: UserId | null = null; ; ) {
    const from: UserId | null = after;
    const page: readonly AuditHeadRow[] = await ctx.store.transaction((tx) => tx.auditHeads(from, PAGE));
    for (const { userId } of page) {
      await ctx.store.transaction(async (tx) => {
        const row = (await tx.auditHeads(before(userId), 1))[0];
        // a shadow may have been swept meanwhile
        if (row?.userId !== userId) return;
        const pseudonym = await checkHead(tx, row, (text) => note(found, `log of ${userId}: ${text}`));
        if (pseudonym) tracks.set(pseudonym.toHex(), { userId, erased: row.pseudonym !== null, seq: 0 });
      });
    }
    const last = page.at(-1);
    if (!last || page.length < PAGE) return tracks;
    after = last.userId;
  }
}

/** The id before one, in the order of ids; null before the first. */
function before(userId: UserId): UserId | null {
  const number = BigInt(`0x${userId}`);
  return number === 0n ? null : ((number - 1n).toString(16).padStart(32, "0") as UserId);
}

type Say = (text: string) => void;

/** One log's head and entries; gives its pseudonym. */
async function checkHead(tx: Tx, row: AuditHeadRow, say: Say): Promise<Uint8Array | null> {
  const { userId, seq, link, logSalt, loggedSeq, expiresAtMs } = row;
  const account = await hasAccount(tx, userId);
  const erased = row.pseudonym !== null;
  if (erased && account) say("it is marked as erased, but its account is there");
  if (erased && logSalt) say("it is erased, but has a salt");
  if (!erased && !account && expiresAtMs === null) say("it belongs to nobody");
  if ((account || erased) && expiresAtMs !== null) say("it is an account's, but expires");
  await (erased ? checkErased(tx, row, say) : checkEntries(tx, row, say));
  const pseudonym = row.pseudonym ?? (logSalt ? auditPseudonym(userId, logSalt) : null);
  if (!pseudonym) {
    // a shadow from before the server-wide log may have lost its first entry
    if (seq > 0 && expiresAtMs === null) say("it has no pseudonym");
    if (loggedSeq > 0) say("it counts as logged, but has no pseudonym");
    return null;
  }
  const size = (await tx.logHead())?.size ?? 0;
  const newest = await tx.loggedPosition(pseudonym, size);
  if ((newest?.seq ?? 0) !== loggedSeq) {
    say(`it counts as logged up to ${loggedSeq}, but the server-wide log holds ${newest?.seq ?? "none"} of it`);
  }
  if (loggedSeq > seq) say("the server-wide log is ahead of it");
  if (newest && newest.seq === seq && !equalBytes(newest.link, link)) say("its head is not the logged one");
  return pseudonym;
}

/** A row that cannot be read is there nevertheless: the account's own check names it. */
async function hasAccount(tx: Tx, userId: UserId): Promise<boolean> {
  try {
    return (await tx.account(userId)) !== undefined;
  } catch (error) {
    if (error instanceof Fault && error.code === "corrupt") return true;
    throw error;
  }
}

const WHOLE = { keyId: null, action: null, fromMs: null, untilMs: null, requestId: null } as const;

/** Entries, their stored links and the salt of the first one. A shadow's first entries may have been swept. */
async function checkEntries(tx: Tx, row: AuditHeadRow, say: Say): Promise<void> {
  const { userId, expiresAtMs } = row;
  let head = { seq: 0, link: ZERO_HASH_BYTES };
  for (let first = true; ; first = false) {
    const entries: readonly SaltedEntry[] = await tx.audit(userId, { ...WHOLE, after: head.seq, limit: PAGE });
    const links = await tx.auditLinks(userId, head.seq, PAGE);
    const start = entries[0];
    if (first && start) {
      if (start.entry.seq === 1 && !(row.logSalt && equalBytes(row.logSalt, start.salt))) {
        say("its pseudonym is not that of its first entry");
      }
      if (expiresAtMs !== null) head = { seq: start.entry.seq - 1, link: start.entry.previous };
    }
    const done = continueAudit(head, userId, entries);
    if (!done.ok) return say(`it breaks at entry ${done.broken.seq} (${done.broken.reason})`);
    const same = links.length === entries.length && entries.every((item, i) => fits(item, links[i], expiresAtMs));
    if (!same) return say(`its stored links after entry ${head.seq} are not those of its entries`);
    ({ head } = done);
    if (entries.length < PAGE) break;
  }
  // all entries of a shadow may be gone before its head
  const swept = expiresAtMs !== null && head.seq === 0;
  if (!swept && (head.seq !== row.seq || !equalBytes(head.link, row.link))) say("it does not end at its head");
}

type Stored = Awaited<ReturnType<Tx["auditLinks"]>>[number];

function fits(item: SaltedEntry, stored: Stored | undefined, expiresAtMs: number | null): boolean {
  if (!stored || stored.seq !== item.entry.seq || !equalBytes(stored.link, auditLink(item))) return false;
  // an entry that expired before its head would tear the chain
  return expiresAtMs === null ? stored.expiresAtMs === null : (stored.expiresAtMs ?? Infinity) <= expiresAtMs;
}

/** Of an erased account the sequences and the last link can be held to something. */
async function checkErased(tx: Tx, { userId, seq, link }: AuditHeadRow, say: Say): Promise<void> {
  if ((await tx.audit(userId, { ...WHOLE, after: 0, limit: 1 })).length > 0) say("an erased entry has content");
  let last: { seq: number; link: Uint8Array } = { seq: 0, link: ZERO_HASH_BYTES };
  for (;;) {
    const links = await tx.auditLinks(userId, last.seq, PAGE);
    if (links.some((one) => one.expiresAtMs !== null)) say("an erased entry expires");
    if (links.some((one, i) => one.seq !== last.seq + i + 1)) return say("erased entries are missing");
    last = links.at(-1) ?? last;
    if (links.length < PAGE) break;
  }
  if (last.seq !== seq || !equalBytes(last.link, link)) say("its erased entries do not end at its head");
}

/** The tree as it was when the check came to it: leaves, nodes, head and checkpoint. */
async function checkTree(ctx: Context, tracks: Map<string, Track>, found: Findings): Promise<void> {
  const { origin } = ctx.log;
  const say: Say = (text) => note(found, `server-wide log: ${text}`);
  const { head, stored } = await ctx.store.transaction(async (tx) => {
    const log = await tx.logHead();
    const counts = await tx.logCounts();
    if (log && counts.leaves !== log.size) say(`it has ${counts.leaves} leaves, its head names ${log.size}`);
    if (log && counts.nodes !== log.size - frontierOf(log.size).length) say("it has too many or too few nodes");
    return { head: log, stored: await tx.checkpoint() };
  });
  if (!head) return say("it was never begun");
  if (head.origin !== origin) say("it belongs to another server or incarnation");
  const opened = stored ? signedBy(stored.note, ctx.log) : null;
  if (stored && !opened) say("the checkpoint is not signed by this server's log key");
  if (opened && (opened.size !== stored?.size || opened.size > head.size)) say("the checkpoint is not of its size");
  if (!stored) say("it has no checkpoint");
  let tree: { size: number; root: Uint8Array; frontier: Uint8Array[] } = { size: 0, root: EMPTY_ROOT, frontier: [] };
  const signedRoot = (at: typeof tree) => {
    if (opened?.size === at.size && !equalBytes(at.root, opened.root)) say("the checkpoint names another root");
  };
  signedRoot(tree);
  while (tree.size < head.size) {
    const limit = Math.min(
      PAGE,
      head.size - tree.size,
      opened && opened.size > tree.size ? opened.size - tree.size : PAGE,
    );
    const leaves = await ctx.store.transaction((tx) => tx.logLeaves(tree.size, limit));
    if (leaves.length < limit) return say(`leaves are missing after ${tree.size + leaves.length}`);
    await ctx.store.transaction(async (tx) => {
      for (const [i, leaf] of leaves.entries()) {
        if (leaf.index !== tree.size + i) say(`leaf ${tree.size + i} is missing`);
        await checkLeaf(tx, head, leaf, tracks, say);
      }
    });
    const next = appendLeaves(
      tree.size,
      tree.frontier,
      leaves.map(({ hash }) => hash),
    );
    await ctx.store.transaction((tx) => checkNodes(tx, next.nodes, say));
    tree = next;
    signedRoot(tree);
  }
  if (!equalBytes(foldNodes(tree.frontier), head.root)) say("its leaves do not give its root");
}

/** The checkpoint in a note that is, byte for byte, one that this server signs: with one key, or two in a rotation. */
function signedBy(note: string, { origin, signers }: LogKeys): Checkpoint | null {
  const sets = [signers, [...signers].reverse(), ...signers.map((signer) => [signer])];
  for (const { publicKey } of signers) {
    const opened = openCheckpoint(note, origin, publicKey);
    if (opened && sets.some((set) => signCheckpoint(opened, set) === note)) return opened;
  }
  return null;
}

async function checkNodes(tx: Tx, nodes: readonly TreeNode[], say: Say): Promise<void> {
  const hashes = await tx.logNodes(nodes).catch(() => []);
  const wrong = nodes.find(({ hash }, i) => !hashes[i] || !equalBytes(hashes[i], hash));
  if (wrong) say(`node ${wrong.level}/${wrong.index} is missing or another one`);
}

async function checkLeaf(
  tx: Tx,
  { restart }: LogHead,
  leaf: LogLeaf & { readonly index: number },
  tracks: Map<string, Track>,
  say: Say,
): Promise<void> {
  const { index, pseudonym, seq, link, hash } = leaf;
  if (index === 0 && restart) {
    const blank = seq === 0 && equalBytes(pseudonym, ZERO_HASH_BYTES) && equalBytes(link, ZERO_HASH_BYTES);
    if (!blank || !equalBytes(hash, restartLeaf(restart)))
      say("its first leaf is not the checkpoint before the restore");
    return;
  }
  if (!equalBytes(hash, positionLeaf(leaf))) say(`leaf ${index} has another content than its hash`);
  const track = tracks.get(pseudonym.toHex());
  // the log of an unknown name has expired
  if (!track) return;
  if (seq <= track.seq) say(`leaf ${index} goes back in the log of ${track.userId}`);
  track.seq = seq;
  const stored = (await tx.auditLinks(track.userId, seq - 1, 1))[0];
  const there = stored?.seq === seq;
  if (there && !equalBytes(stored.link, link)) say(`leaf ${index} names another entry ${seq} of ${track.userId}`);
  if (!there && !track.erased && (await hasAccount(tx, track.userId)))
    say(`leaf ${index} names an entry that is missing`);
}
