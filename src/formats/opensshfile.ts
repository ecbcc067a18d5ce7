import { equalBytes, wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { SecretType } from "../protocol/secrettype.ts";
import { type Format, onlyItem, type PlainItem, singleName, unreadable } from "./item.ts";
import { sniffOpenssh } from "./sniff.ts";
import { parseSshPrivate, SSH_KEY_TYPES, type SshKeyType, type SshPrivateKey, writeSshPrivate } from "./sshkey.ts";

const TYPES: readonly SecretType[] = ["ssh", ...SSH_KEY_TYPES];

/**
 * One private key in OpenSSH's form without passphrase. It is read as `ssh`, whose value is the file written anew, with
 * the comment as a field too; `ssh` and other keys that ssh knows are written.
 */
export const openssh: Format = {
  name: "openssh",
  kind: "single",
  binary: false,
  types: TYPES,
  keeps: [],
  sniff: sniffOpenssh,
  read: (file, options) => {
    const { type, key, comment } = parsed(file);
    try {
      const name = singleName("openssh", options.name);
      const fields = comment === "" ? [] : [{ name: "comment", kind: "text", value: comment } as const];
      const value = writeSshPrivate(type, key, comment);
      return { items: [{ name, type: "ssh", value, tags: [], createdAt: null, fields }], lost: [] };
    } finally {
      wipe(key);
    }
  },
  write: (items) => {
    const item = onlyItem({ name: "openssh", types: TYPES }, items);
    const { type, key, comment } = keyOf(item);
    try {
      return writeSshPrivate(type, key, comment);
    } finally {
      wipe(key);
    }
  },
  same: (a, b) => {
    const keys: SshPrivateKey[] = [];
    try {
      for (const item of [a, b]) keys.push(keyOf(item));
      const [one, other] = keys;
      return one !== undefined && other !== undefined && one.type === other.type && equalBytes(one.key, other.key);
    } finally {
      wipe(...keys.map(({ key }) => key));
    }
  },
};

function parsed(file: Uint8Array): SshPrivateKey {
  try {
    return parseSshPrivate(file);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw unreadable("openssh", error.why ?? error.message, error.hint);
  }
}

/** The key of an item, with the comment that its file gets: its field, else that of the file, else the item's name. */
function keyOf(item: PlainItem): SshPrivateKey {
  const stated = item.fields?.find((field) => field.name === "comment")?.value;
  if (item.type === "ssh") {
    const key = parseSshPrivate(item.value);
    return stated === undefined ? key : { ...key, comment: stated };
  }
  const type = SSH_KEY_TYPES.find((one): one is SshKeyType => one === item.type);
  if (type === undefined) {
    throw new Fault("bad_input", `cannot write type "${item.type}" as openssh`, { hint: "use --to json" });
  }
  return { type, key: item.value.slice(), publicBlob: new Uint8Array(0), comment: stated ?? item.name };
}
