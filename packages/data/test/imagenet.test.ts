import { describe, expect, it } from 'vitest';
import { imagenetClasses, imagenetLabel } from '../src/imagenet/index.js';

describe('ImageNet classes', () => {
  it('are a thousand, each found by its number and its first word alone', () => {
    expect(imagenetClasses).toHaveLength(1000);
    expect([207, 360, 387, 974, 88, 979, 417, 279].map((i) => imagenetClasses[i]!.split(',')[0])).toEqual(['golden retriever', 'otter', 'lesser panda', 'geyser', 'macaw', 'valley', 'balloon', 'Arctic fox']);
    expect(imagenetLabel('Golden Retriever')).toBe(207);
    expect(imagenetLabel(' red panda')).toBe(387);
    expect(imagenetLabel('88')).toBe(88);
  });

  it('that are not there, or twice, are errors that help', () => {
    expect(() => imagenetLabel('crane')).toThrow(/134 is crane; 517 is crane/);
    expect(() => imagenetLabel('retriever')).toThrow(/near are 205 flat-coated retriever/);
    expect(() => imagenetLabel('1000')).toThrow('from 0 to 999');
    expect(() => imagenetLabel('x')).toThrow('name of an ImageNet class');
  });
});
