import { entropyToMnemonic, mnemonicToEntropy } from "@scure/bip39";
import { wordlist } from "@scure/bip39/wordlists/english.js";
import { equalBytes, wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { SecretType } from "../protocol/secrettype.ts";
import { type Format, onlyItem, type PlainItem, singleName, unreadable, utf8Bytes, utf8Text } from "./item.ts";

const TYPES: readonly SecretType[] = ["bytes", "bip39"];
/** 24 words of at most eight letters, with room for white space. */
const MAX_FILE_BYTES = 1_024;

/**
 * 12, 15, 18, 21 or 24 English words for 16, 20, 24, 28 or 32 bytes and a checksum (BIP-39). The words stand for the
 * bytes themselves: nothing of a wallet's seed derivation is done. They are read as `bytes`; `bip39` is written as the
 * words that it is.
 */
export const bip39: Format = {
  name: "bip39",
  kind: "single",
  binary: false,
  types: TYPES,
  keeps: [],
  sniff: (start) => wordsOf(start) !== null,
  read: (file, options) => {
    const value = wordsOf(file);
    if (value === null) {
      throw unreadable("bip39", "it is not 12, 15, 18, 21 or 24 words of the English list with a right checksum");
    }
    const name = singleName("bip39", options.name);
    return { items: [{ name, type: "bytes", value, tags: [], createdAt: null }], lost: [] };
  },
  write: (items) => {
    const entropy = entropyOf(onlyItem({ name: "bip39", types: TYPES }, items));
    try {
      return utf8Bytes(`${entropyToMnemonic(entropy, wordlist)}\n`);
    } finally {
      wipe(entropy);
    }
  },
  same: (written, read) => {
    const [a, b] = [entropyOf(written), entropyOf(read)];
    try {
      return equalBytes(a, b);
    } finally {
      wipe(a, b);
    }
  },
};

/** The bytes that words stand for, or null. */
function wordsOf(file: Uint8Array): Uint8Array | null {
  const text = file.length <= MAX_FILE_BYTES ? utf8Text(file) : null;
  if (text === null) return null;
  const words = text.normalize("NFKD").trim().toLowerCase().split(/\s+/);
  try {
    return mnemonicToEntropy(words.join(" "), wordlist);
  } catch {
    return null;
  }
}

function entropyOf({ type, value }: PlainItem): Uint8Array {
  if (type === "bip39") {
    const entropy = wordsOf(value);
    if (entropy !== null) return entropy;
    throw new Fault("bad_input", "cannot write as bip39: the value is no mnemonic with a right checksum", {
      hint: "use --to json",
    });
  }
  if (type === "bytes" && value.length >= 16 && value.length <= 32 && value.length % 4 === 0) return value.slice();
  throw new Fault("bad_input", "cannot write as bip39: it holds 16, 20, 24, 28 or 32 bytes", {
    hint: "use --to json, base64 or hex",
  });
}
