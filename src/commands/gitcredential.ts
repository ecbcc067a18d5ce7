import type { KeyholdClient, SecretInfo } from "../client/api.ts";
import { equalBytes, wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import {
  fitOf,
  GIT_INPUT_BYTES,
  type GitCredential,
  readGitCredential,
  writeGitCredential,
} from "../formats/gitcredential.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { readStandardInput } from "../ui/password.ts";
import { withClient } from "../ui/session.ts";
import { decodeText, plain } from "../ui/text.ts";

/** Logins that git itself had kept lie under this name. */
const PREFIX = "git/";

/** Logins that fit, the closest alone; several when none is closer. */
async function fitting(client: KeyholdClient, asked: GitCredential): Promise<readonly SecretInfo[]> {
  const { items } = await client.list({ prefix: null, search: null, tag: null, fresh: false });
  const rated = items
    .filter(({ type, user }) => type === "login" && (asked.username === null || user === asked.username))
    .map((info) => ({ info, fit: Math.max(-1, ...info.urls.map((url) => fitOf(url, asked))) }))
    .filter(({ fit }) => fit >= 0);
  const best = Math.max(-1, ...rated.map(({ fit }) => fit));
  return rated.filter(({ fit }) => fit === best).map(({ info }) => info);
}

const isOver = ({ expiresAt }: SecretInfo): boolean => expiresAt !== null && Date.parse(expiresAt) <= Date.now();

async function passwordOf(client: KeyholdClient, { keyId }: SecretInfo): Promise<Uint8Array> {
  const got = await client.get({ name: keyId, version: null, reveal: true, fresh: false, save: false });
  return got.value ?? new Uint8Array(0);
}

async function answer(ctx: Context, client: KeyholdClient, asked: GitCredential): Promise<void> {
  const all = await fitting(client, asked);
  const found = all.filter((info) => !isOver(info));
  const [only] = found;
  if (only === undefined) {
    if (all.length > 0) ctx.out.notice(`the login for ${plain(asked.host)} has expired: keyhold edit NAME`);
    return;
  }
  if (found.length > 1) {
    const names = found.map(({ name }) => plain(name)).join(", ");
    const key = `credential.${asked.protocol}://${plain(asked.host)}.username`;
    ctx.out.notice(`several logins fit ${plain(asked.host)} (${names}): choose one by git config ${key} NAME`);
    return;
  }
  const password = await passwordOf(client, only);
  const expiryS = only.expiresAt === null ? null : Math.floor(Date.parse(only.expiresAt) / 1_000);
  try {
    const lines = writeGitCredential({ username: only.user, password: decodeText(password), expiryS });
    ctx.out.bytes(lines);
    wipe(lines);
  } finally {
    wipe(password);
  }
}

/** Keeps what worked, unless it is kept already. */
async function keep(client: KeyholdClient, given: GitCredential): Promise<void> {
  const { username, password } = given;
  if (username === null || password === null) return;
  const value = new TextEncoder().encode(password);
  const expiresAt = given.expiryS === null ? null : new Date(given.expiryS * 1_000).toISOString();
  try {
    const [known] = await fitting(client, given);
    if (known) {
      const before = await passwordOf(client, known);
      const same = equalBytes(before, value);
      wipe(before);
      if (same) return;
      await client.store({ name: known.name, type: null, value, tags: [], where: null, expiresAt });
      return;
    }
    const url = `${given.protocol}://${given.host}${given.path === null ? "" : `/${given.path}`}`;
    const fields = [
      { name: "user", kind: "text" as const, value: username },
      { name: "url", kind: "url" as const, value: url },
    ];
    const name = `${PREFIX}${given.host}/${encodeURIComponent(username)}`;
    await client.store({ name, type: "login", value, tags: [], where: null, fields, expiresAt });
  } finally {
    wipe(value);
  }
}

/** Removes what git says is wrong, if git had kept it and it is still the same. */
async function forget(ctx: Context, client: KeyholdClient, given: GitCredential): Promise<void> {
  for (const known of await fitting(client, given)) {
    if (!known.name.startsWith(PREFIX)) {
      ctx.out.notice(`the server refused the login ${plain(known.name)}: keyhold edit NAME`);
      continue;
    }
    const before = await passwordOf(client, known);
    const same = given.password !== null && decodeText(before) === given.password;
    wipe(before);
    if (same) await client.remove({ name: known.keyId, purge: false });
  }
}

export default defineCommand({
  args: {
    action: {
      type: "positional",
      description: "get, store or erase: git says which",
      ask: "What git asks for (get, store, erase)",
    },
  },
  data: "none: git reads lines of key=value",
  details:
    "Git's credential helper. `get` answers with the login whose address fits, the closest path first; `store` keeps " +
    "what worked as a login under git/; `erase` removes only what it had kept itself. It never asks for a password: " +
    "where the vault is locked, git asks as it does without a helper.",
  examples: [
    ["git config --global credential.helper '!keyhold git-credential'", "let git ask keyhold"],
    [
      "keyhold store work/gitlab --type login --set user=ada --set url=https://gitlab.example",
      "a login that git finds",
    ],
    ["keyhold git-credential get", "what git runs, with its question on stdin"],
  ],
  run: async (args, ctx) => {
    // git may know of more actions one day: a helper passes those over (gitcredentials(7))
    if (!["get", "store", "erase"].includes(args.action)) return;
    const input = readStandardInput(ctx, "git's question", GIT_INPUT_BYTES + 1);
    try {
      const given = readGitCredential(input);
      const locked = () =>
        Promise.reject(new Fault("locked", "the vault is locked: git asks by itself", { hint: "keyhold unlock" }));
      await withClient({ ...ctx, term: { ...ctx.term, password: locked } }, (client) =>
        args.action === "get"
          ? answer(ctx, client, given)
          : args.action === "store"
            ? keep(client, given)
            : forget(ctx, client, given),
      );
    } finally {
      wipe(input);
    }
  },
});
