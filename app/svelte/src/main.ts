import './page.css';

import { mount } from 'svelte';

import Page from './Page.svelte';

const target = document.getElementById('root');
if (target === null) throw new Error('the document has no #root');
mount(Page, { target });
