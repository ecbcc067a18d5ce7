import { defineCommand } from "../../ui/command.ts";
import { listing } from "../../ui/output.ts";
import { plain } from "../../ui/text.ts";
import type { ControlInput, ControlOutput } from "../../wire/control.ts";
import { administer, DIR } from "./admin.ts";

type Page = ControlOutput<"ceremony.list">;

const timeOf = (ms: number): string => new Date(ms).toISOString();

export const ceremonyList = defineCommand({
  list: true,
  args: { ...DIR, all: { type: "boolean", description: "also those that are over" } },
  data: "{items:[{id, name, organiser, status, until, openedAt, seats, taken}], next}",
  details:
    "What the operator sees: who opened a ceremony, how far it is, and how many seats are taken. Those that were " +
    "aborted are forgotten after 90 days.",
  examples: [
    ["keyhold server ceremony list", "ceremonies that are open"],
    ["keyhold server ceremony list --all", "those that are over, too"],
  ],
  run: async (args, ctx) => {
    const items: Page["items"][number][] = [];
    for (const over of args.all ? [false, true] : [false]) {
      for (let after: ControlInput<"ceremony.list">["after"] = null; ; ) {
        const page: Page = await administer(ctx, args.dir, "ceremony.list", { over, after });
        items.push(...page.items);
        if (page.next === null) break;
        after = page.next;
      }
    }
    const shown = items.map((one) => ({
      id: one.ceremonyId,
      name: one.name,
      organiser: one.organiser,
      status: one.status,
      until: one.untilMs === null ? null : timeOf(one.untilMs),
      openedAt: timeOf(one.openedAtMs),
      seats: one.seats,
      taken: one.taken,
    }));
    const cells = shown.map((one) => [
      plain(one.name),
      plain(one.organiser),
      one.status,
      `${one.taken}/${one.seats}`,
      one.until ?? "",
      one.id,
    ]);
    const heads = ["NAME", "ORGANISER", "STATUS", "SEATS", "UNTIL", "ID"];
    return listing({ items: shown, next: null }, { heads, cells });
  },
});
