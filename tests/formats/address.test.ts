import { describe, expect, test } from "bun:test";
import { ed25519 } from "@noble/curves/ed25519.js";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { bech32m } from "@scure/base";
import fc from "fast-check";
import { Fault } from "../../src/errors.ts";
import {
  ADDRESS_KINDS,
  ADDRESS_RULES,
  type AddressInput,
  type AddressKey,
  type AddressKind,
  type AddressNetwork,
  addressOf,
  NETWORKS,
} from "../../src/formats/address.ts";
import shared from "../vectors/addresses.json" with { type: "json" };

const hex = (text: string) => Uint8Array.fromHex(text);
type Given = Partial<AddressInput> & { readonly as: AddressKind; readonly key: AddressKey };
const of = ({ key, ...input }: Given) => addressOf({ network: null, prefix: null, ...input, ...key });
const kindOf = (text: string): AddressKind => {
  const kind = ADDRESS_KINDS.find((one) => one === text);
  if (kind) return kind;
  throw new Error(text);
};
const networkOf = (text: string | undefined): AddressNetwork | null => NETWORKS.find((one) => one === text) ?? null;
const refused = (input: Given): Fault => {
  try {
    of(input);
  } catch (error) {
    if (error instanceof Fault) return error;
    throw error;
  }
  throw new Error("it was not refused");
};

describe("published vectors", () => {
  for (const v of shared.vectors) {
    test(`${v.type} ${v.network ?? v.prefix ?? ""}: ${v.address}`, () => {
      const key =
        v.internalKey === undefined ? { publicKey: hex(v.publicKey ?? "") } : { internalKey: hex(v.internalKey) };
      const made = of({ as: kindOf(v.type), key, network: networkOf(v.network), prefix: v.prefix ?? null });
      expect(made).toBe(v.address);
    });
  }

  const G = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
  test.each([
    // BIP-84, account 0: two receiving keys and one of change
    [
      "0330d54fd0dd420a6e5f8d3624f5f3482cae350f79d5f0753bf5beef9c2d91af3c",
      "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu",
    ],
    [
      "03e775fd51f0dfb8cd865d9ff1cca2a158cf651fe997fdc9fee9c1d3b5e995ea77",
      "bc1qnjg0jd8228aq7egyzacy8cys3knf9xvrerkf9g",
    ],
    [
      "03025324888e429ab8e3dbaf1f7802648b9cd01e9b418485c5fa4c1b9b5700e1a6",
      "bc1q8c6fshw2dlwun7ekn9qwf37cu2rn755upcp6el",
    ],
  ])("BIP-84 %s", (publicKey, address) => {
    expect(of({ as: "btc-p2wpkh", key: { publicKey: hex(publicKey) } })).toBe(address);
  });

  test.each([
    // BIP-341 wallet-test-vectors.json, the first; BIP-86: receiving 0 and 1, change 0
    [
      "d6889cb081036e0faefa3a35157ad71086b123b2b144b649798b494c300a961d",
      "53a1f6e454df1aa2776a2814a721372d6258050de330b3c6d10ee8f4e0dda343",
      "bc1p2wsldez5mud2yam29q22wgfh9439spgduvct83k3pm50fcxa5dps59h4z5",
    ],
    [
      "cc8a4bc64d897bddc5fbc2f670f7a8ba0b386779106cf1223c6fc5d7cd6fc115",
      "a60869f0dbcf1dc659c9cecbaf8050135ea9e8cdc487053f1dc6880949dc684c",
      "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr",
    ],
    [
      "83dfe85a3151d2517290da461fe2815591ef69f2b18a2ce63f01697a8b313145",
      "a82f29944d65b86ae6b5e5cc75e294ead6c59391a1edc5e016e3498c67fc7bbb",
      "bc1p4qhjn9zdvkux4e44uhx8tc55attvtyu358kutcqkudyccelu0was9fqzwh",
    ],
    [
      "399f1b2f4393f29a18c937859c5dd8a77350103157eb880f02e8c08214277cef",
      "882d74e5d0572d5a816cef0041a96b6c1de832f6f9676d9605c44d5e9a97d3dc",
      "bc1p3qkhfews2uk44qtvauqyr2ttdsw7svhkl9nkm9s9c3x4ax5h60wqwruhk7",
    ],
  ])("taproot: internal key %s and its output key give one address", (internal, output, address) => {
    expect(of({ as: "btc-p2tr", key: { internalKey: hex(internal) } })).toBe(address);
    expect(of({ as: "btc-p2tr", key: { outputKey: hex(output) } })).toBe(address);
    expect(of({ as: "btc-p2tr", key: { outputKey: hex(`02${output}`) } })).toBe(address);
    expect(of({ as: "btc-p2tr", key: { outputKey: hex(`03${output}`) } })).toBe(address);
    // what locks money away: an output key taken for an internal one
    expect(of({ as: "btc-p2tr", key: { internalKey: hex(output) } })).not.toBe(address);
  });

  test("BIP-350: witness programs of version 1 on mainnet and testnet", () => {
    const main = of({ as: "btc-p2tr", key: { outputKey: hex(G.slice(2)) } });
    expect(main).toBe("bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0");
    const program = hex("000000c4a5cad46221b2a187905e5266362b99d5e91c6ce24d165dab93e86433");
    expect(of({ as: "btc-p2tr", key: { outputKey: program }, network: "testnet" })).toBe(
      "tb1pqqqqp399et2xygdj5xreqhjjvcmzhxw4aywxecjdzew6hylgvsesf3hn0c",
    );
  });

  test.each([
    // private keys 1 and 2, and the first account that development nodes make of their well-known phrase
    [1n, "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"],
    [2n, "0x2B5AD5c4795c026514f8317c7a215E218DcCD6cF"],
    [0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80n, "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"],
  ])("EIP-55 of key %p", (scalar, address) => {
    const publicKey = secp256k1.Point.BASE.multiply(scalar).toBytes(true);
    expect(of({ as: "evm", key: { publicKey } })).toBe(address);
  });

  test.each([
    [
      "band",
      "03c749da3b0e419662625f6438d631e126ec86fee785e853fc695ba50c1e54a750",
      "band1tpedaeatr9qsv5sg38dmhnuwpvhjmuesql2rn9",
    ],
    [
      "bnb",
      "030cf11aa206ad2275f4164f3e1a1ed4d3190be4b148e1d93a64ea0b2a9a51882c",
      "bnb1vhvnd7v8900adfytj2yl9sldapa6p9ghcnaqtz",
    ],
    [
      "terra",
      "022a8752ce8480844725834ddc8b62ab42b05ff4f220336ea41c15a8ad0d155a0a",
      "terra1dz5atdvdmfugpgum0mj0flq3asruycfyzh2waa",
    ],
    [
      "terra",
      "034fef9cd7c4c63588d3b03feb5281b9d232cba34d6f3d71aee59211ffbfe1fe87",
      "terra1w34k53py5v5xyluazqpq65agyajavep29d9qch",
    ],
    [
      null,
      "02d41a0aa167b21699429eab224bc03f2cd386f0af5d20cefbd0336f1544aea24f",
      "cosmos1h806c7khnvmjlywdrkdgk2vrayy2mmvf9rxk2r",
    ],
  ])("cosmos with prefix %s", (prefix, publicKey, address) => {
    expect(of({ as: "cosmos", key: { publicKey: hex(publicKey) }, prefix })).toBe(address);
  });

  test("solana: the key itself", () => {
    const zero = ed25519.getPublicKey(new Uint8Array(32));
    expect(of({ as: "solana", key: { publicKey: zero } })).toBe("4zvwRjXUKGfvwnParsHAS3HuSVzV5cA4McphgmoCtajS");
    const cookbook = hex("0fb9ba52b1f09445f1e3a7508d59f0797923acf744fbe2da303fb06da859ee87");
    expect(of({ as: "solana", key: { publicKey: cookbook } })).toBe("24PNhTaNtomHhoy3fTRaMhAFCRj4uHqhZEEoWrKDbR5p");
  });

  test("zcash: testnet and regtest begin with tm", () => {
    const publicKey = hex(G);
    expect(of({ as: "zcash-p2pkh", key: { publicKey } })).toStartWith("t1");
    expect(of({ as: "zcash-p2pkh", key: { publicKey }, network: "testnet" })).toStartWith("tm");
    const key = { publicKey };
    expect(of({ as: "zcash-p2pkh", key, network: "regtest" })).toBe(of({ as: "zcash-p2pkh", key, network: "testnet" }));
  });

  test("signet shares testnet's addresses, regtest has bcrt", () => {
    const key = { publicKey: hex(G) };
    const at = (network: AddressNetwork) => of({ as: "btc-p2wpkh", key, network });
    expect(at("signet")).toBe(at("testnet"));
    expect(at("regtest")).toStartWith("bcrt1q");
    expect(of({ as: "btc-p2tr", key: { outputKey: hex(G.slice(2)) }, network: "regtest" })).toStartWith("bcrt1p");
  });
});

describe("what is refused", () => {
  const publicKey = secp256k1.Point.BASE.toBytes(true);
  const key = { publicKey };

  test("a network that the kind does not have: the fault names those it has", () => {
    for (const as of ADDRESS_KINDS) {
      for (const network of NETWORKS.filter((one) => !ADDRESS_RULES[as].networks.includes(one))) {
        const fault = refused({ as, key, network });
        expect(fault.code).toBe("bad_input");
        expect(fault.hint).toContain(ADDRESS_RULES[as].networks.join(", "));
      }
    }
    expect(refused({ as: "zcash-p2pkh", key, network: "signet" }).hint).toContain("mainnet, testnet, regtest");
  });

  test("a prefix where there is none, and prefixes that no chain has", () => {
    for (const as of ["evm", "btc-p2wpkh", "zcash-p2pkh"] as const) {
      expect(refused({ as, key, prefix: "cosmos" }).code).toBe("bad_input");
    }
    for (const prefix of ["", "Cosmos", "cos mos", "1abc", "a".repeat(33), "é", "bc\n"]) {
      expect(refused({ as: "cosmos", key, prefix }).code).toBe("bad_input");
    }
  });

  test("a key in the wrong role", () => {
    expect(refused({ as: "btc-p2tr", key }).hint).toContain("locks the money");
    for (const as of ADDRESS_KINDS.filter((one) => one !== "btc-p2tr")) {
      expect(refused({ as, key: { outputKey: publicKey } }).hint).toContain("btc-p2tr");
      expect(refused({ as, key: { internalKey: publicKey } }).code).toBe("bad_input");
    }
  });

  test("points that are none: off the curve, of small order, at infinity, of another length", () => {
    // x = 5 has no y on secp256k1
    const off = concatHex("02", "05".padStart(64, "0"));
    const wide = concatHex("02", "fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc30");
    for (const bytes of [off, wide, new Uint8Array(33), publicKey.subarray(1), secp256k1.Point.BASE.toBytes(false)]) {
      for (const as of ["evm", "btc-p2wpkh", "cosmos", "zcash-p2pkh"] as const) {
        expect(refused({ as, key: { publicKey: bytes } }).code).toBe("bad_input");
      }
    }
    for (const bytes of [off, off.subarray(1), new Uint8Array(32), new Uint8Array(31)]) {
      expect(refused({ as: "btc-p2tr", key: { outputKey: bytes } }).code).toBe("bad_input");
      expect(refused({ as: "btc-p2tr", key: { internalKey: bytes } }).code).toBe("bad_input");
    }
    const small = [
      "0000000000000000000000000000000000000000000000000000000000000000",
      "0100000000000000000000000000000000000000000000000000000000000000",
      "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
      // y = p: a second encoding of 0
      "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    for (const text of small) expect(refused({ as: "solana", key: { publicKey: hex(text) } }).code).toBe("bad_input");
    expect(refused({ as: "solana", key }).code).toBe("bad_input");
    const mixed = ed25519.Point.BASE.add(ed25519.Point.fromHex(small[2] ?? "")).toBytes();
    expect(refused({ as: "solana", key: { publicKey: mixed } }).code).toBe("bad_input");
  });
});

const concatHex = (...parts: readonly string[]) => hex(parts.join(""));

test("an output key's address is its raw witness program", () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 1n, max: secp256k1.Point.Fn.ORDER - 1n }), (scalar) => {
      const outputKey = secp256k1.Point.BASE.multiply(scalar).toBytes(true);
      const { prefix, words } = bech32m.decode(of({ as: "btc-p2tr", key: { outputKey } }) as `bc1${string}`);
      expect(prefix).toBe("bc");
      expect(words[0]).toBe(1);
      expect(bech32m.fromWords(words.slice(1))).toEqual(outputKey.slice(1));
    }),
    { numRuns: 20 },
  );
});
