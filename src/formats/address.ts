import { ed25519 } from "@noble/curves/ed25519.js";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { ripemd160 } from "@noble/hashes/legacy.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { base58, bech32, createBase58check } from "@scure/base";
import { Address, p2tr, p2wpkh } from "@scure/btc-signer/payment.js";
import type { BTC_NETWORK } from "@scure/btc-signer/utils.js";
import { addr } from "micro-eth-signer";
import { concat } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { ADDRESS_KINDS, type AddressKind, type AddressNetwork, NETWORKS } from "../protocol/addresskind.ts";
import type { FederatedType } from "../protocol/federation/kinds.ts";
import { BITCOIN_NETWORKS } from "../protocol/transaction/recipient.ts";

export { ADDRESS_KINDS, type AddressKind, type AddressNetwork, NETWORKS };

interface AddressRule {
  /** Type of the key that can spend from such an address. */
  readonly type: FederatedType;
  /** Networks that give another address; empty where all of them share one. */
  readonly networks: readonly AddressNetwork[];
  /** Takes a human-readable prefix. */
  readonly prefix: boolean;
}

/** What each kind of address is made of. */
export const ADDRESS_RULES: { readonly [K in AddressKind]: AddressRule } = {
  evm: { type: "secp256k1", networks: [], prefix: false },
  "btc-p2wpkh": { type: "secp256k1", networks: NETWORKS, prefix: false },
  "btc-p2tr": { type: "schnorr", networks: NETWORKS, prefix: false },
  cosmos: { type: "secp256k1", networks: [], prefix: true },
  solana: { type: "ed25519", networks: [], prefix: false },
  "zcash-p2pkh": { type: "secp256k1", networks: ["mainnet", "testnet", "regtest"], prefix: false },
};

/** The key of an address: exactly one. */
export type AddressKey =
  /** Compressed secp256k1 point, 33 bytes; Ed25519 key, 32 bytes. Of every kind but `btc-p2tr`. */
  | { readonly publicKey: Uint8Array }
  /** Of `btc-p2tr`: x-only key (32 bytes) or compressed point, before the tweak that BIP-341 wants. */
  | { readonly internalKey: Uint8Array }
  /** Of `btc-p2tr`: the key of the output itself, never tweaked here. So are a federation's `schnorr` keys. */
  | { readonly outputKey: Uint8Array };

export type AddressInput = AddressKey & {
  readonly as: AddressKind;
  /** Null means mainnet, or that the kind has none. */
  readonly network: AddressNetwork | null;
  /** Human-readable part of a `cosmos` address; null means `cosmos`. */
  readonly prefix: string | null;
};

/** Version bytes of a transparent address (Zcash protocol specification §5.6.1.1). */
const ZCASH_P2PKH = { mainnet: [0x1c, 0xb8], testnet: [0x1d, 0x25], regtest: [0x1d, 0x25] } as const;

const bad = (message: string, hint?: string) =>
  new Fault("bad_input", `cannot make an address: ${message}`, hint === undefined ? {} : { hint });

/**
 * Makes the address of a public key.
 *
 * @throws Fault bad_input for a key that is no point of its curve, and for a combination that does not exist
 */
export function addressOf(input: AddressInput): string {
  const { as, network, prefix } = input;
  const rule = ADDRESS_RULES[as];
  if (network !== null && !rule.networks.includes(network)) {
    const allowed = rule.networks.length > 0 ? `one of ${rule.networks.join(", ")}` : "none: all networks share it";
    throw bad(`${as} has no network ${network}`, `--network for ${as}: ${allowed}`);
  }
  if (prefix !== null && !rule.prefix) throw bad(`${as} takes no prefix`, "--prefix is for cosmos alone");
  if (as === "btc-p2tr") return taproot(input, BITCOIN_NETWORKS[network ?? "mainnet"]);
  if (!("publicKey" in input)) {
    throw bad(`${as} has neither internal nor output key`, "give --public-key; --output-key is for btc-p2tr alone");
  }
  const { publicKey } = input;
  if (as === "solana") return base58.encode(ed25519Key(publicKey));
  const point = compressed(publicKey, as);
  switch (as) {
    case "evm":
      return addr.fromPublicKey(point);
    case "btc-p2wpkh":
      return p2wpkh(point, BITCOIN_NETWORKS[network ?? "mainnet"]).address;
    case "cosmos":
      return bech32.encode(humanPart(prefix ?? "cosmos"), bech32.toWords(hash160(point)));
    case "zcash-p2pkh": {
      const version = ZCASH_P2PKH[network === "testnet" || network === "regtest" ? network : "mainnet"];
      return createBase58check(sha256).encode(concat(Uint8Array.from(version), hash160(point)));
    }
    default:
      return as satisfies never;
  }
}

const hash160 = (bytes: Uint8Array): Uint8Array => ripemd160(sha256(bytes));

function taproot(key: AddressKey, network: BTC_NETWORK): string {
  if ("publicKey" in key) {
    throw bad(
      "btc-p2tr takes the x-only internal key, which is tweaked, or the output key, which is not",
      "say which one it is: tweaking an output key again locks the money away",
    );
  }
  if ("outputKey" in key) return Address(network).encode({ type: "tr", pubkey: xOnly(key.outputKey) });
  return p2tr(xOnly(key.internalKey), undefined, network).address;
}

/** The x coordinate of a point: BIP-340 takes the one of even y. */
function xOnly(key: Uint8Array): Uint8Array {
  if (key.length === 32) {
    compressed(concat(Uint8Array.of(2), key), "btc-p2tr");
    return key;
  }
  return compressed(key, "btc-p2tr").subarray(1);
}

function compressed(key: Uint8Array, as: AddressKind): Uint8Array {
  if (key.length !== 33) {
    throw bad(as === "btc-p2tr" ? "its key has 32 bytes (x-only)" : `the key for ${as} has 33 bytes (compressed)`);
  }
  try {
    return secp256k1.Point.fromBytes(key).toBytes(true);
  } catch {
    throw bad("this is no point of secp256k1");
  }
}

function ed25519Key(key: Uint8Array): Uint8Array {
  if (key.length !== 32) throw bad("the key for solana has 32 bytes (Ed25519)");
  const valid = (() => {
    try {
      const point = ed25519.Point.fromBytes(key, false);
      return !point.is0() && point.isTorsionFree();
    } catch {
      return false;
    }
  })();
  if (!valid) throw bad("this is no Ed25519 key");
  return key;
}

/** BIP-173 allows more; chains use lower-case letters and digits. */
function humanPart(prefix: string): string {
  if (/^[a-z][a-z0-9]{0,31}$/.test(prefix)) return prefix;
  throw bad("a prefix has 1 to 32 lower-case letters and digits, a letter first");
}
