import DefaultTheme from 'vitepress/theme';
import { h } from 'vue';
import pruned from '../../images/samples-pruned.png';
import recovered from '../../images/samples-recovered.png';
import teacher from '../../images/samples-teacher.png';
import StudioHere from './StudioHere.vue';
import './style.css';

const samples = [
  [teacher, 'teacher, 12 layers'],
  [pruned, 'the 6 learned layers, before recovery'],
  [recovered, 'the same 6, after 80 steps of masked RepKD'],
] as const;

export default {
  extends: DefaultTheme,
  Layout: () => h(DefaultTheme.Layout, null, { 'home-hero-image': () => h('div', { class: 'samples' }, samples.map(([src, of]) => h('figure', [h('img', { src, alt: `Clothes drawn by ${of}` }), h('figcaption', of)]))) }),
  enhanceApp: ({ app }: { app: { component(name: string, component: unknown): void } }) => app.component('StudioHere', StudioHere),
};
