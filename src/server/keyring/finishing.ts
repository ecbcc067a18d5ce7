import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { UserId } from "../../ids.ts";
import { signatureHolds } from "../../protocol/federation/signing.ts";
import { isOpenLife } from "../../protocol/keyring/requestlife.ts";
import { signableOf } from "../../protocol/transaction/index.ts";
import type { InputOf } from "../../wire/operations.ts";
import { result } from "./coordinator.ts";
import { perform } from "./performing.ts";
import { askedOf, type Desk, itemOf, type Scene } from "./scene.ts";
import type { RegistryService } from "./service.ts";
import { demandReader, shown } from "./voting.ts";

type Result = InputOf<"keyring.finish">["results"][number];

/** Takes the signature of one item, verified against its key. @throws Fault conflict, integrity */
async function finish(scene: Scene, { itemId, signature }: Result): Promise<void> {
  const item = await itemOf(scene, itemId);
  const known = item.value.result;
  if (known && equalBytes(known, signature)) return;
  // ECDSA by another client of the owner may differ, and the first one stands
  if (known) throw new Fault("conflict", "this item has its signature already");
  if (!isOpenLife(scene.value.life)) throw new Fault("conflict", `this request is ${scene.value.life.status} already`);
  const { certificate, partials, course } = item.value;
  if (course.kind !== "release" || certificate === null || partials.length === 0)
    throw new Fault("conflict", "no shares were let out for this item");
  const { body } = (await askedOf(scene.tx, itemId)).request;
  if (body.kind !== "release" || body.message === null) throw new Fault("corrupt", "this item signs nothing");
  const { type, publicKey } = certificate.certificate;
  const { bytes, prehashed } = signableOf({ ...body, message: body.message, type, publicKey });
  if (!signatureHolds(certificate.certificate, bytes, signature, prehashed))
    throw new Fault("integrity", "this signature does not hold under the key");
  item.value = { ...item.value, result: signature };
  await result(scene, item);
}

/** Signatures that an owner's client has made of released shares (docs/protocol.md §9.6). */
export function createFinishing(desk: Desk): Pick<RegistryService, "keyring.finish"> {
  async function finishAll(scene: Scene, userId: UserId, results: readonly Result[]) {
    await demandReader(scene, userId);
    if (scene.value.userId !== userId)
      throw new Fault("denied", "shares were let out to the owner who asked, and to nobody else");
    for (const one of results) await finish(scene, one);
  }
  return {
    "keyring.finish": ({ account: { userId } }, { requestId, results }) =>
      perform(desk, requestId, async (scene) => {
        await finishAll(scene, userId, results);
        return () => shown(desk, scene, userId);
      }).then((show) => show()),
  };
}
