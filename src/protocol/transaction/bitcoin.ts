import { OutScript, p2wpkh } from "@scure/btc-signer/payment.js";
import { _DebugPSBT } from "@scure/btc-signer/psbt.js";
import { getPrevOut, SigHash, Transaction } from "@scure/btc-signer/transaction.js";
import { concat, equalBytes } from "../../crypto/bytes.ts";
import { cannotSign, decimal, type ReadTransaction, TRANSACTION_MAX, type TransactionFacts } from "./facts.ts";
import { scriptRecipient } from "./recipient.ts";

/** A key that spends: compressed point, 33 bytes. The x coordinate of a `schnorr` key is an output key (BIP-341). */
export interface BitcoinKey {
  readonly type: "secp256k1" | "schnorr";
  readonly publicKey: Uint8Array;
}

/** Inputs, and outputs, of a transaction at most. */
const PLACES_MAX = 256;
/** All there is, in satoshi. */
const SUPPLY = 2_100_000_000_000_000n;
const COIN = 8;

interface Place {
  readonly script: Uint8Array;
  readonly amount: bigint;
}

interface Spent extends Place {
  /** Transaction id and index. */
  readonly outpoint: string;
  /** The whole previous transaction is there, and has that id. */
  readonly proven: boolean;
}

function parse(bytes: Uint8Array): Transaction {
  try {
    const { items } = _DebugPSBT.decode(bytes);
    // an id of a previous transaction that does not fit is refused here
    const transaction = Transaction.fromPSBT(bytes, {
      allowUnknownInputs: true,
      allowUnknownOutputs: true,
      disableScriptCheck: true,
    });
    // the library lets an empty map follow the last output's
    if (items.length !== 1 + transaction.inputsLength + transaction.outputsLength) throw cannotSign("it has more maps");
    return transaction;
  } catch {
    throw cannotSign("these bytes are no PSBT of version 0 or 2, or bring a transaction that it does not spend from");
  }
}

const paid = (amount: bigint): bigint => {
  if (amount < 0n || amount > SUPPLY) throw cannotSign("an amount is more than there is");
  return amount;
};

function spentBy(transaction: Transaction, at: number): Spent {
  const input = transaction.getInput(at);
  const { txid, index, nonWitnessUtxo, witnessUtxo } = input;
  if (txid === undefined || index === undefined || (nonWitnessUtxo === undefined && witnessUtxo === undefined)) {
    throw cannotSign(`the PSBT does not say what its input ${at} spends`);
  }
  const { script, amount } = getPrevOut(input);
  return { script, amount: paid(amount), outpoint: `${txid.toHex()}:${index}`, proven: nonWitnessUtxo !== undefined };
}

function paidBy(transaction: Transaction, at: number): Place {
  const { script, amount } = transaction.getOutput(at);
  if (script === undefined || amount === undefined) throw cannotSign(`the PSBT lacks a part of its output ${at}`);
  return { script, amount: paid(amount) };
}

const sum = (places: readonly Place[]): bigint => places.reduce((all, { amount }) => all + amount, 0n);
const range = (count: number) => Array.from({ length: count }, (_, at) => at);

/** The script of a key that pays to itself: P2WPKH, or P2TR whose output key it is. */
function ownScript({ type, publicKey }: BitcoinKey): Uint8Array {
  return type === "secp256k1" ? p2wpkh(publicKey).script : concat(Uint8Array.of(0x51, 0x20), publicKey.subarray(1));
}

/** Which kind of key spends from a script; null for another kind of output. */
function spendingType(script: Uint8Array): BitcoinKey["type"] | null {
  if (script.length === 22 && script[0] === 0x00 && script[1] === 0x14) return "secp256k1";
  return script.length === 34 && script[0] === 0x51 && script[1] === 0x20 ? "schnorr" : null;
}

function checkSighashType(type: BitcoinKey["type"], given: number | undefined): number {
  const allowed: readonly number[] = type === "schnorr" ? [SigHash.DEFAULT, SigHash.ALL] : [SigHash.ALL];
  const wanted = given ?? (type === "schnorr" ? SigHash.DEFAULT : SigHash.ALL);
  if (allowed.includes(wanted)) return wanted;
  throw cannotSign("only whole transactions are signed: SIGHASH_ALL, or SIGHASH_DEFAULT of Taproot");
}

function sighashOf(transaction: Transaction, input: number, type: BitcoinKey["type"], spent: readonly Spent[]) {
  const own = spent[input];
  if (own === undefined) throw cannotSign(`it has no input ${input}`);
  const hashType = checkSighashType(type, transaction.getInput(input).sighashType);
  if (type === "schnorr") {
    const scripts = spent.map(({ script }) => script);
    const amounts = spent.map(({ amount }) => amount);
    return transaction.preimageWitnessV1(input, scripts, hashType, amounts);
  }
  const scriptCode = OutScript.encode({ type: "pkh", hash: own.script.subarray(2) });
  return transaction.preimageWitnessV0(input, scriptCode, hashType, own.amount);
}

const sat = (amount: bigint) => `${amount} sat (${decimal(amount, COIN)} BTC)`;

function factsOf(input: number, own: Uint8Array, spent: readonly Spent[], outputs: readonly Place[]): TransactionFacts {
  const isOwn = ({ script }: Place) => equalBytes(script, own);
  const others = outputs.filter((one) => !isOwn(one));
  const [taken, back] = [sum(spent.filter(isOwn)), sum(outputs.filter(isOwn))];
  const fee = sum(spent) - sum(outputs);
  if (fee < 0n) throw cannotSign("the transaction pays more than it spends");
  const leaves = taken > back ? taken - back : 0n;
  const named = others.map((one) => ({ recipient: scriptRecipient(one.script), amount: one.amount }));
  const foreign = spent.length - spent.filter(isOwn).length;
  return {
    amount: { unit: "sat", value: String(leaves) },
    recipients: [...new Set(named.map(({ recipient }) => recipient))],
    lines: [
      { label: "transaction", value: `Bitcoin, input ${input} of ${spent.length}` },
      { label: "spends of the key", value: sat(taken) },
      ...(foreign === 0 ? [] : [{ label: "spends of others", value: sat(sum(spent) - taken) }]),
      ...named.map(({ recipient, amount }) => ({ label: "pays to", value: `${shown(recipient)}: ${sat(amount)}` })),
      ...(back === 0n ? [] : [{ label: "back to the key", value: sat(back) }]),
      { label: "fee", value: sat(fee) },
      { label: "leaves the key", value: sat(leaves) },
    ],
  };
}

const shown = (recipient: string) => (recipient.length > 200 ? `${recipient.slice(0, 200)}… (cut)` : recipient);

/**
 * Reads a PSBT and computes the sighash of one input: of P2WPKH by BIP-143, of P2TR spent by its key path by BIP-341.
 * All that leaves the key is its inputs less what comes back to the same script, the fee included.
 *
 * BIP-143 covers the amount of the signed input alone: with more than one input each must bring the whole transaction
 * that it spends from, or a requester could lie about one amount at a time and hide a fee.
 *
 * @param key Whose script the input must have; null to show what a transaction does without knowing the key.
 * @throws Fault bad_input
 */
export function readBitcoin(bytes: Uint8Array, input: number, key: BitcoinKey | null): ReadTransaction {
  if (bytes.length > TRANSACTION_MAX) throw cannotSign(`a transaction has at most ${TRANSACTION_MAX} bytes`);
  const transaction = parse(bytes);
  const { inputsLength, outputsLength } = transaction;
  if (outputsLength < 1) throw cannotSign("the transaction pays nobody");
  if (inputsLength > PLACES_MAX || outputsLength > PLACES_MAX) {
    throw cannotSign(`a transaction has at most ${PLACES_MAX} inputs and ${PLACES_MAX} outputs`);
  }
  if (!Number.isSafeInteger(input) || input < 0 || input >= inputsLength) throw cannotSign(`it has no input ${input}`);
  const spent = range(inputsLength).map((at) => spentBy(transaction, at));
  const outputs = range(outputsLength).map((at) => paidBy(transaction, at));
  if (new Set(spent.map(({ outpoint }) => outpoint)).size !== spent.length) {
    throw cannotSign("the transaction spends something twice");
  }
  const { script } = spent[input] ?? { script: new Uint8Array(0) };
  if (key !== null && !equalBytes(script, ownScript(key))) {
    const kind = key.type === "schnorr" ? "P2TR of this output key" : "P2WPKH";
    throw cannotSign(`input ${input} does not belong to this key (${kind})`);
  }
  const type = spendingType(script);
  if (type === null) throw cannotSign(`input ${input} is neither P2WPKH nor P2TR`);
  const { finalScriptSig, finalScriptWitness } = transaction.getInput(input);
  if (finalScriptSig !== undefined || finalScriptWitness !== undefined) throw cannotSign(`input ${input} is signed`);
  const unproven = spent.findIndex(({ proven }) => !proven);
  if (type === "secp256k1" && spent.length > 1 && unproven >= 0) {
    throw cannotSign(`input ${unproven} must bring the whole transaction that it spends from (non-witness UTXO)`);
  }
  const facts = factsOf(input, script, spent, outputs);
  return { sighash: sighashOf(transaction, input, type, spent), facts };
}
