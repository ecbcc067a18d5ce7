import { schnorr, secp256k1 } from "@noble/curves/secp256k1.js";
import { p2wpkh } from "@scure/btc-signer/payment.js";
import { RawTx } from "@scure/btc-signer/script.js";
import { Transaction } from "@scure/btc-signer/transaction.js";
import { Transaction as EvmTransaction } from "micro-eth-signer";
import { concat } from "../../src/crypto/bytes.ts";

/** Unsigned transactions, as wallets make them with the foreign libraries. */

/** A key with its private scalar, so that tests can sign as the servers together would. */
export interface TestKey {
  readonly type: "secp256k1" | "schnorr";
  readonly scalar: Uint8Array;
  /** Compressed point; of `schnorr` the one of even y. */
  readonly publicKey: Uint8Array;
  /** Where money for it lies: P2WPKH, or P2TR with the public key as output key. */
  readonly script: Uint8Array;
}

export function testKey(type: TestKey["type"], n: number): TestKey {
  const scalar = new Uint8Array(32).fill(n);
  if (type === "secp256k1") {
    const publicKey = secp256k1.getPublicKey(scalar, true);
    return { type, scalar, publicKey, script: p2wpkh(publicKey).script };
  }
  const x = schnorr.getPublicKey(scalar);
  return { type, scalar, publicKey: concat(Uint8Array.of(2), x), script: concat(Uint8Array.of(0x51, 0x20), x) };
}

export interface Paid {
  readonly script: Uint8Array;
  readonly amount: bigint;
}

/** A transaction that pays, to be spent from: its id and all its bytes. */
export function funding(outputs: readonly Paid[], tag = 1): { readonly txid: string; readonly raw: Uint8Array } {
  const input = { txid: new Uint8Array(32).fill(tag), index: 0, finalScriptSig: new Uint8Array(0), sequence: 1 };
  const raw = RawTx.encode({ version: 2, segwitFlag: false, inputs: [input], outputs: [...outputs], lockTime: 0 });
  const { id: txid } = Transaction.fromRaw(raw, { allowUnknownOutputs: true, disableScriptCheck: true });
  return { txid, raw };
}

export interface Spending {
  /** What each input spends, in order; `bare` leaves the previous transaction out, `lie` claims another amount. */
  readonly inputs: readonly (Paid & {
    readonly bare?: boolean;
    readonly sighashType?: number;
    readonly tag?: number;
  })[];
  readonly outputs: readonly Paid[];
  readonly version?: 0 | 2;
}

/** A PSBT. */
export function psbtOf(spending: Spending): Transaction {
  const transaction = new Transaction({
    PSBTVersion: spending.version ?? 0,
    allowUnknownOutputs: true,
    allowUnknownInputs: true,
    disableScriptCheck: true,
  });
  for (const [at, { script, amount, bare, sighashType, tag }] of spending.inputs.entries()) {
    const { txid, raw } = funding([{ script, amount }], tag ?? at + 1);
    transaction.addInput({
      txid,
      index: 0,
      witnessUtxo: { script, amount },
      ...(bare ? {} : { nonWitnessUtxo: raw }),
      ...(sighashType === undefined ? {} : { sighashType }),
    });
  }
  for (const { script, amount } of spending.outputs) transaction.addOutput({ script, amount });
  return transaction;
}

export const BOB = "0x3535353535353535353535353535353535353535";
const GWEI = 1_000_000_000n;

/** An unsigned EVM transaction of type 2 that pays `value` wei to `to`; 21,000 gas of at most 2 gwei. */
export function evmPayment(
  over: Partial<{ to: string; value: bigint; data: string; chainId: bigint; gasLimit: bigint; nonce: bigint }> = {},
) {
  return EvmTransaction.prepare(
    {
      type: "eip1559",
      to: BOB,
      value: 1_000_000n * GWEI,
      nonce: 7n,
      chainId: 1n,
      gasLimit: 21_000n,
      maxFeePerGas: 2n * GWEI,
      maxPriorityFeePerGas: GWEI,
      ...over,
    },
    false,
  );
}

/** Its bytes, as they are given to be signed. */
export const evmBytes = (transaction: { toBytes(opts: { includeSignature: boolean }): Uint8Array }): Uint8Array =>
  transaction.toBytes({ includeSignature: false });

/** `transfer(address,uint256)` (ERC-20). */
export const transferData = (to: string, amount: bigint): string =>
  `0xa9059cbb${to.slice(2).toLowerCase().padStart(64, "0")}${amount.toString(16).padStart(64, "0")}`;
