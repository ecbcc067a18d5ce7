import { createOpening } from "./opening.ts";
import { createPruning } from "./pruning.ts";
import { createReleasing } from "./releasing.ts";
import { createDesk } from "./scene.ts";
import type { KeyStoreService, KeyStoreSite } from "./service.ts";
import { sweepCeremonies } from "./sweeping.ts";
import { createTaking } from "./taking.ts";
import { createViews } from "./views.ts";

/** Ceremonies of a server: their operations but those of the distribution server. */
export type CeremonyPart = Pick<
  KeyStoreService,
  Extract<keyof KeyStoreService, `ceremony.${string}`> | "prepare" | "rotate" | "sweep" | "close"
>;

/** Makes the ceremonies' part of the key store; all that it knows lies in the database. */
export function createCeremonies(site: KeyStoreSite): CeremonyPart {
  const desk = createDesk(site);
  const prune = createPruning(site.ctx);
  return {
    ...createOpening(desk),
    ...createTaking(desk),
    ...createReleasing(desk),
    ...createViews(desk),
    "ceremony.keys": async () => ({ items: [...(await desk.keys.all())], atMs: site.ctx.now() }),
    async prepare() {
      await desk.keys.newest();
    },
    rotate: () => desk.keys.rotate(),
    async sweep() {
      await prune();
      await sweepCeremonies(desk);
    },
    async close() {
      desk.ending = true;
      await Promise.all(desk.combining.values());
    },
  };
}
