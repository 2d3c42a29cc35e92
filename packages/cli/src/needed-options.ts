import { ArgumentError } from '@tinyfusion/core';
import type { Command } from 'commander';

/** Options that a job looks at only where something else is given. */
interface Need {
  options: readonly string[];
  /** Whether it is. */
  met: (line: Line) => boolean;
  expected: string;
}

/** What was typed. */
interface Line {
  given: (option: string) => boolean;
  value: (option: string) => unknown;
  args: readonly unknown[];
}

/** Options that are about another one. */
const withOption = (needed: string, ...options: string[]): Need => ({ options, met: ({ given }) => given(needed), expected: `to be given with ${needed}` });

const kept = withOption('--run', '--save-every', '--keep-every');

const pictures = withOption('--sample-every', '--vae');

const network: Need = { options: ['--inception'], met: ({ given }) => !given('--dinov2'), expected: 'to be left out with --dinov2, which takes its place' };

const isOnnx = ({ args }: Line): boolean => String(args[1]).endsWith('.onnx');

/** By job; `prune` looks at its own, which depend on the criterion. */
const needs: Readonly<Record<string, readonly Need[]>> = {
  'learn-masks': [kept],
  'learn-branches': [kept],
  distill: [kept, withOption('--run', '--sample-every'), pictures],
  sample: [withOption('--ckpt', '--heads', '--weights', '--vae', '--preview', '--rng')],
  evaluate: [
    network,
    { options: ['--ckpt', '--heads', '--weights', '--vae', '--dtype', '--rng', '--solver', '--metrics', '--inception', '--dinov2', '--skip-broken'], met: ({ args }) => args[0] !== undefined, expected: 'a reference to measure against as the first argument: without one a model of ours is measured on the embedded images' },
    { options: ['--model', '--ckpt', '--heads', '--weights', '--vae', '--dtype', '--rng', '--solver', '--samples', '--steps', '--cfg', '--no-compile'], met: ({ args }) => args[1] === undefined, expected: 'to be left out with samples as the second argument: nothing is drawn' },
  ],
  stats: [network],
  convert: [
    { options: ['--model', '--heads', '--part'], met: isOnnx, expected: 'to be left out but for a file that ends in .onnx' },
    { options: ['--names', '--whole'], met: (line) => !isOnnx(line), expected: 'to be left out for .onnx, which has names of its own' },
    { options: ['--image-size'], met: ({ value }) => value('--names') === 'upstream', expected: 'to be left out but for --names upstream: no other names tell a size' },
  ],
  pack: [withOption('--vae', '--seed')],
  train: [withOption('--family', '--save-every', '--keep-every', '--sample-every', '--vae', '--config', '--batch', '--parts', '--recompute', '--lr', '--seed'), pictures],
};

/** @throws ArgumentError for an option that the job would leave out of account */
export function checkNeeded(command: Command): void {
  const find = (option: string) => command.options.find(({ long }) => long === option);
  const given = (option: string): boolean => {
    const key = find(option)?.attributeName();
    return key !== undefined && ![undefined, 'default'].includes(command.getOptionValueSource(key));
  };
  const value = (option: string): unknown => command.getOptionValue(find(option)!.attributeName());
  for (const { options, met, expected } of needs[command.name()] ?? []) {
    if (met({ given, value, args: command.processedArgs as unknown[] })) continue;
    for (const option of options) {
      if (!given(option)) continue;
      throw new ArgumentError(option, typeof value(option) === 'boolean' ? 'given' : value(option), expected);
    }
  }
}
